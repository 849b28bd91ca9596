//! One file that runs on Debian 12 and newer. It is read here as it was built for the tests, of the same sources, libraries and
//! linker as a release.

use std::process::Command;

/// What Debian 12 has.
const GLIBC_MAX: (u32, u32) = (2, 36);
/// What every Linux with glibc has: the C library in its parts, and the one that unwinds the stack.
const LIBRARIES: &[&str] =
    &["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];

fn read(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).arg(env!("CARGO_BIN_EXE_holdfast")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn it_needs_nothing_but_the_c_library() {
    let dynamic = read("readelf", &["--dynamic", "--wide"]);
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let needed: Vec<&str> = needed.filter_map(|line| line.split(['[', ']']).nth(1)).collect();
    assert!(needed.contains(&"libc.so.6"), "{dynamic}");
    assert!(needed.iter().all(|library| LIBRARIES.contains(library)), "{needed:?}");
}

#[test]
fn it_runs_with_the_c_library_of_debian_12() {
    let symbols = read("objdump", &["--dynamic-syms"]);
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let mut numbers =
            rest.split(|character: char| !character.is_ascii_digit()).map_while(|digits| digits.parse().ok());
        Some((numbers.next()?, numbers.next()?))
    });
    let newest: (u32, u32) = versions.max().expect("it uses the C library");
    assert!(newest <= GLIBC_MAX, "{newest:?}");
}
