//! The manual pages and the completions of shells, which are made of the arguments and kept in `docs/` for the package.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::Arguments;
use holdfast::config::{self, Variable};
use written::{is_writing, written};

const SHELLS: &[Shell] = &[Shell::Bash, Shell::Fish, Shell::Zsh];

/// The tests' own.
mod written {
    include!("../tests/util/written.rs");
}

/// The arguments; the version without the commit, which would change the files with every one.
fn command() -> Command {
    Arguments::command().version(env!("CARGO_PKG_VERSION"))
}

/// A page for the program and one for each of its commands, by the files' names.
fn pages() -> BTreeMap<String, String> {
    let mut program = command().disable_help_subcommand(true);
    program.build();
    let commands: Vec<Command> = program.get_subcommands().cloned().collect();
    let mut pages: BTreeMap<_, _> = commands.into_iter().map(|command| page(command, &[])).collect();
    pages.extend([page(program, config::VARIABLES)]);
    pages
}

fn page(command: Command, variables: &[Variable]) -> (String, String) {
    // `holdfast-ask`, as man(1) finds the page of `holdfast ask`.
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let notes = command.get_after_help().map(ToString::to_string);
    let has_commands = command.has_subcommands();
    let man = Man::new(command).title(name.to_uppercase()).source(concat!("holdfast ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    if has_commands {
        man.render_subcommands_section(&mut page).unwrap();
    }
    let mut rest = Roff::new();
    if let Some(notes) = notes {
        // Its lines are lines.
        rest.control("SH", ["NOTES"]).control("nf", []).text([roman(notes)]).control("fi", []);
    }
    if !variables.is_empty() {
        rest.control("SH", ["ENVIRONMENT"]);
    }
    for Variable { name, default, meaning, .. } in variables {
        let default = default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
        rest.control("TP", []).text([bold(*name), roman(default)]).text([roman(*meaning)]);
    }
    rest.to_writer(&mut page).unwrap();
    (format!("{name}.1"), String::from_utf8(page).unwrap())
}

fn completions() -> BTreeMap<String, String> {
    let script = |shell: &Shell| {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut command(), "holdfast", &mut script);
        let name = shell.to_possible_value().unwrap().get_name().to_owned();
        (format!("holdfast.{name}"), String::from_utf8(script).unwrap())
    };
    SHELLS.iter().map(script).collect()
}

/// Holds a directory to have these files and no others.
#[track_caller]
fn holds(directory: &str, wanted: &BTreeMap<String, String>) {
    for (name, text) in wanted {
        written(&format!("{directory}/{name}"), None, text);
    }
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).unwrap() {
        let entry = entry.unwrap();
        if !wanted.contains_key(&*entry.file_name().to_string_lossy()) {
            assert!(is_writing(), "{} is of no arguments any more", entry.path().display());
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn the_manual_is_written_of_the_arguments() {
    let pages = pages();
    assert!(pages.contains_key("holdfast.1") && pages.contains_key("holdfast-ask.1"), "{:?}", pages.keys());
    holds("docs/man", &pages);
}

#[test]
fn the_completions_are_written_of_the_arguments() {
    holds("docs/completions", &completions());
}
