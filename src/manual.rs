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

/// The variable that has the files written anew instead of compared.
const WRITE: &str = "HOLDFAST_TEST_WRITE";
const SHELLS: &[Shell] = &[Shell::Bash, Shell::Fish, Shell::Zsh];

/// The arguments; the version without the commit, which would change the files with every one.
fn command() -> Command {
    Arguments::command().version(env!("CARGO_PKG_VERSION"))
}

/// A page for the program and one for each of its commands, by the files' names.
fn pages() -> BTreeMap<String, Vec<u8>> {
    let mut program = command().disable_help_subcommand(true);
    program.build();
    let commands: Vec<Command> = program.get_subcommands().cloned().collect();
    let mut pages: BTreeMap<_, _> = commands.into_iter().map(|command| page(command, &[])).collect();
    pages.extend([page(program, config::VARIABLES)]);
    pages
}

fn page(command: Command, variables: &[Variable]) -> (String, Vec<u8>) {
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
    (format!("{name}.1"), page)
}

fn completions() -> BTreeMap<String, Vec<u8>> {
    let script = |shell: &Shell| {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut command(), "holdfast", &mut script);
        let name = shell.to_possible_value().unwrap().get_name().to_owned();
        (format!("holdfast.{name}"), script)
    };
    SHELLS.iter().map(script).collect()
}

/// Compares a directory with what has to be in it, to the last byte and file.
#[track_caller]
fn holds(directory: &str, wanted: &BTreeMap<String, Vec<u8>>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    if std::env::var_os(WRITE).is_some() {
        drop(fs::remove_dir_all(&directory));
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in wanted {
            fs::write(directory.join(name), text).unwrap();
        }
    }
    let entries = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap());
    let found = entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
    let found: BTreeMap<String, Vec<u8>> = found.collect();
    let differ: Vec<&String> =
        wanted.keys().chain(found.keys()).filter(|name| wanted.get(*name) != found.get(*name)).collect();
    assert!(
        differ.is_empty(),
        "{differ:?} of {} are not of these arguments: {WRITE}=1 cargo test --bin holdfast writes them anew",
        directory.display()
    );
}

#[test]
fn the_manual_is_of_these_arguments() {
    let pages = pages();
    assert!(pages.contains_key("holdfast.1") && pages.contains_key("holdfast-ask.1"), "{:?}", pages.keys());
    holds("docs/man", &pages);
}

#[test]
fn the_completions_are_of_these_arguments() {
    holds("docs/completions", &completions());
}
