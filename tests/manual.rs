//! Completions and manual pages match the command line: they are generated from the same
//! definition.

mod common;

use common::{postern, run, stderr};
use std::process::{Command, Stdio};

fn printed(arguments: &[&str]) -> String {
    let mut command = postern();
    command.args(arguments);
    let output = run(command);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns whether a tool is installed, and prints a note if it is not.
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {tool} is not installed");
    }
    found
}

#[test]
fn bash_completes_commands_and_options() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("postern");
    std::fs::write(&script, printed(&["completions", "bash"])).unwrap();
    if !has("bash") {
        return;
    }
    for (typed, expected) in [
        ("postern se", "send serve"),
        ("postern tail --fo", "--follow"),
        ("postern completions z", "zsh"),
    ] {
        let words = typed.split(' ').count();
        let complete = format!(
            "source '{}'; COMP_WORDS=({typed}); COMP_CWORD=$(({words} - 1)); \
             _postern postern \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; \
             echo ${{COMPREPLY[@]}}",
            script.display(),
        );
        let output = Command::new("bash").args(["-c", &complete]).output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words: Vec<&str> = words.split_whitespace().collect();
        words.sort_unstable();
        assert_eq!(words.join(" "), expected, "{typed}: {}", stderr(&output));
    }
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(printed(&["completions", shell]).contains("recover"), "{shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let all = printed(&["man"]);
    printed(&["man", "--dir", folder.path().to_str().unwrap()]);
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let page = std::fs::read_to_string(&path).unwrap();
        assert!(all.contains(&page), "{}", path.display());
        pages.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), path));
    }
    let help = printed(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .map_while(|line| line.strip_prefix("  "))
        .filter_map(|line| line.split(' ').next().filter(|word| !word.is_empty()))
        .filter(|word| *word != "help")
        .collect();
    assert!(commands.len() > 8, "{help}");
    for command in commands {
        assert!(pages.iter().any(|(name, _)| *name == format!("postern-{command}")), "{command}");
    }
    for (name, path) in &pages {
        let page = std::fs::read_to_string(path).unwrap().replace("\\-", "-");
        let title = page.lines().find(|line| line.starts_with(".TH ")).expect("a title");
        assert!(title.contains("20"), "{name} has a date: {title}");
        // The page refers only to pages that exist, and shows the values of options.
        for word in page.split_whitespace().filter_map(|word| word.strip_suffix("(1)")) {
            assert!(pages.iter().any(|(known, _)| known == word), "{name} refers to {word}");
        }
    }
    let send = printed(&["man"]).replace("\\-", "-");
    assert!(send.contains("[\\fB--password-file\\fR \\fIFILE\\fR]"), "{send}");
    if !has("groff") {
        return;
    }
    for (name, path) in pages {
        let output = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(path).output();
        let output = output.unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {}", stderr(&output));
    }
}
