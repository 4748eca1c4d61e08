//! The program itself, as it is started from a shell. It is also why `cargo test` builds it for the tests in Python.

use std::process::Command;

fn legwork(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_legwork")).args(args).output().expect("the program was built with this test")
}

#[test]
fn help_names_every_command_and_wrong_usage_is_told_apart() {
    let help = legwork(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success());
    for command in ["demo", "up", "run", "sql", "backfill", "repair", "lanes", "check", "explain"] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(command)), "{command} in {text}");
    }
    assert_eq!(legwork(&["no-such-command"]).status.code(), Some(2));
}
