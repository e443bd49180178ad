//! Looking into the source: what it can say is to be on the page, even where no test knows how to have it said.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file below `src`.
pub fn text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of the source") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The names that stand behind `prefix` (such as `Sense::`) below `src`, but for the files in `except`, and comments.
pub fn names(prefix: &str, except: &[&str]) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&root, &mut found);
    found.retain(|path| !except.iter().any(|file| *path == root.join(file)));
    let mut names = BTreeSet::new();
    for path in found {
        let source = fs::read_to_string(&path).expect("readable");
        for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices(prefix) {
                let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                if line[..at].ends_with(is_word) {
                    continue;
                }
                names.insert(line[at + prefix.len()..].chars().take_while(|c| is_word(*c)).collect());
            }
        }
    }
    assert!(names.len() > 3, "{prefix} is written in another way now: {names:?}");
    names
}

/// The two hex numbers of the first `(0x24, 0x00)` behind `marker`.
pub fn pair_behind(source: &str, marker: &str) -> Option<(u8, u8)> {
    let (_, behind) = source.split_once(marker)?;
    let statement = behind.split(';').next()?;
    statement.split('(').find_map(pair)
}

/// Reads `0x24, 0x00)…`.
pub fn pair(text: &str) -> Option<(u8, u8)> {
    let number = |text: &str| u8::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok();
    let (first, second) = text.split_once(')')?.0.split_once(',')?;
    Some((number(first)?, number(second)?))
}

/// The sense key of the constant of this name in `scsi/sense.rs`.
pub fn sense_key(definitions: &str, name: &str) -> u8 {
    const ILLEGAL_REQUEST: u8 = 0x05;
    let definition = definitions
        .split(&format!("const {name}: Self"))
        .nth(1)
        .and_then(|behind| behind.split(';').next())
        .unwrap_or_else(|| panic!("{name} is defined in another way now"));
    let Some((_, key)) = definition.split_once("Key::") else {
        assert!(definition.contains("illegal("), "{name} is defined in another way now");
        return ILLEGAL_REQUEST;
    };
    let key: String = key.chars().take_while(char::is_ascii_alphanumeric).collect();
    let number = definitions
        .split(&format!("{key} = 0x"))
        .nth(1)
        .and_then(|behind| behind.get(..2));
    let number = number.and_then(|number| u8::from_str_radix(number, 16).ok());
    number.unwrap_or_else(|| panic!("the sense key {key} is defined in another way now"))
}
