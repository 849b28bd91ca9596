//! What a shell offers: the files themselves are compared with the arguments beside these (`src/manual.rs`).

use std::process::Command;

use crate::util::require;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/completions");

#[test]
fn bash_completes_a_command_and_its_options() {
    let has_bash = Command::new("bash").arg("--version").output().is_ok();
    if !require("bash", has_bash) {
        return;
    }
    // What bash would do when the tabulator key is pressed after these words.
    let offered = |words: &str| {
        let script = format!(
            "source {FILES}/holdfast.bash
            COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            _holdfast holdfast \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"
            complete -p holdfast >/dev/null
            echo \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["--norc", "-euc", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(offered("holdfast tok"), "token");
    assert_eq!(offered("holdfast ask --fol"), "--follow");
    assert_eq!(offered("holdfast token --ex"), "--expires");
}
