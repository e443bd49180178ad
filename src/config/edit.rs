//! Changes to a configuration file that keep what people wrote around them: comments, order, blank lines.
//!
//! An edit knows where something goes, not whether it is right: the edited text is checked as a whole, like any other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value};

use super::check::default_serial;

/// Keys and what they are set to; `None` takes a key away.
pub(crate) type Keys = BTreeMap<String, Option<Setting>>;

/// What a key can be set to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Setting {
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Several numbers.
    Numbers(Vec<i64>),
}

/// A change to the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Edit {
    /// A new `[[target]]`, with LUN 0 if one is described.
    CreateTarget {
        /// Its name.
        target: String,
        /// Its other keys.
        keys: Keys,
        /// The keys of LUN 0.
        lun: Option<Keys>,
    },
    /// Another name; what follows from the old one (serial numbers) is written down first.
    RenameTarget {
        /// The old name.
        target: String,
        /// The new name.
        to: String,
    },
    /// A `[[target]]` goes, with all below it.
    RemoveTarget {
        /// Its name.
        target: String,
    },
    /// Keys of a target.
    SetTarget {
        /// Its name.
        target: String,
        /// What changes.
        keys: Keys,
    },
    /// A new `[[target.lun]]`.
    CreateLun {
        /// Name of the target.
        target: String,
        /// The number; the lowest that is free, if not given.
        lun: Option<u16>,
        /// Its other keys.
        keys: Keys,
    },
    /// A `[[target.lun]]` goes.
    RemoveLun {
        /// Name of the target.
        target: String,
        /// Its number.
        lun: u16,
    },
    /// Keys of a LUN.
    SetLun {
        /// Name of the target.
        target: String,
        /// Its number.
        lun: u16,
        /// What changes.
        keys: Keys,
    },
}

/// Why a file cannot be edited like that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    /// No such target.
    #[error("there is no target {0}: farlun target list shows those there are")]
    NoTarget(String),
    /// No such LUN.
    #[error("target {target} has no LUN {lun}: farlun lun list {target} shows those it has")]
    NoLun {
        /// The target.
        target: String,
        /// The number.
        lun: u16,
    },
    /// There already.
    #[error("there is a target {0} already: choose another name")]
    TargetThere(String),
    /// There already.
    #[error("target {target} has a LUN {lun} already: choose another number, or none to have one chosen")]
    LunThere {
        /// The target.
        target: String,
        /// The number.
        lun: u16,
    },
    /// All numbers are taken.
    #[error("target {0} has every LUN there can be")]
    Full(String),
    /// Arrays of inline tables.
    #[error("the file has {0} in another form than [[{0}]]: edit it yourself, then farlun reload")]
    Form(&'static str),
    /// Not parsed.
    #[error("{0}")]
    Toml(String),
}

impl Edit {
    /// The text with this change. For a LUN that was created without a number, the number it got.
    ///
    /// # Errors
    /// See [`EditError`].
    pub(crate) fn apply(&self, text: &str) -> Result<(String, Option<u16>), EditError> {
        let mut document: DocumentMut = text
            .parse()
            .map_err(|error: toml_edit::TomlError| EditError::Toml(error.to_string().trim_end().to_owned()))?;
        let chosen = self.change(&mut document)?;
        Ok((document.to_string(), chosen))
    }

    /// Whether it changes how large a file is.
    pub(crate) fn resizes_a_file(&self) -> bool {
        matches!(self, Self::SetLun { keys, .. } if keys.contains_key("size"))
    }

    fn change(&self, document: &mut DocumentMut) -> Result<Option<u16>, EditError> {
        match self {
            Self::CreateTarget { target, keys, lun } => {
                let targets = tables(document.as_table_mut(), "target", "target")?;
                if find(targets, "name", |name| is_name(name, target)).is_some() {
                    return Err(EditError::TargetThere(target.clone()));
                }
                let mut table = new_table(targets);
                put(&mut table, "name", &Setting::Text(target.to_ascii_lowercase()));
                set(&mut table, keys);
                if let Some(keys) = lun {
                    let mut lun = indented("  ");
                    put(&mut lun, "lun", &Setting::Number(0));
                    set(&mut lun, keys);
                    table["lun"] = Item::ArrayOfTables(std::iter::once(lun).collect());
                }
                targets.push(table);
            }
            Self::RenameTarget { target, to } => {
                let targets = tables(document.as_table_mut(), "target", "target")?;
                let same = is_name(Some(&Item::from(to.as_str())), target);
                if !same && find(targets, "name", |name| is_name(name, to)).is_some() {
                    return Err(EditError::TargetThere(to.clone()));
                }
                let table = target_table(document, target)?;
                for lun in tables(table, "lun", "target.lun")?.iter_mut() {
                    let number = lun.get("lun").and_then(Item::as_integer);
                    if let Some(number) = number.and_then(|number| u16::try_from(number).ok())
                        && !lun.contains_key("serial")
                    {
                        let serial = default_serial(&target.to_ascii_lowercase(), number);
                        put(lun, "serial", &Setting::Text(serial));
                    }
                }
                put(table, "name", &Setting::Text(to.to_ascii_lowercase()));
            }
            Self::RemoveTarget { target } => {
                let targets = tables(document.as_table_mut(), "target", "target")?;
                let index = find(targets, "name", |name| is_name(name, target))
                    .ok_or_else(|| EditError::NoTarget(target.clone()))?;
                targets.remove(index);
            }
            Self::SetTarget { target, keys } => set(target_table(document, target)?, keys),
            Self::CreateLun { target, lun, keys } => {
                let luns = tables(target_table(document, target)?, "lun", "target.lun")?;
                let taken = |number: u16| find(luns, "lun", |lun| is_number(lun, number)).is_some();
                let number = match lun {
                    Some(number) if taken(*number) => {
                        let target = target.clone();
                        return Err(EditError::LunThere { target, lun: *number });
                    }
                    Some(number) => *number,
                    None => (0..=0x3fff)
                        .find(|number| !taken(*number))
                        .ok_or_else(|| EditError::Full(target.clone()))?,
                };
                let mut table = new_table(luns);
                put(&mut table, "lun", &Setting::Number(number.into()));
                set(&mut table, keys);
                luns.push(table);
                return Ok(Some(number));
            }
            Self::RemoveLun { target, lun } => {
                let luns = tables(target_table(document, target)?, "lun", "target.lun")?;
                let missing = EditError::NoLun {
                    target: target.clone(),
                    lun: *lun,
                };
                luns.remove(find(luns, "lun", |item| is_number(item, *lun)).ok_or(missing)?);
            }
            Self::SetLun { target, lun, keys } => {
                let luns = tables(target_table(document, target)?, "lun", "target.lun")?;
                let missing = EditError::NoLun {
                    target: target.clone(),
                    lun: *lun,
                };
                let index = find(luns, "lun", |item| is_number(item, *lun)).ok_or(missing.clone())?;
                set(luns.get_mut(index).ok_or(missing)?, keys);
            }
        }
        Ok(None)
    }
}

fn is_name(item: Option<&Item>, name: &str) -> bool {
    item.and_then(Item::as_str)
        .is_some_and(|written| written.eq_ignore_ascii_case(name))
}

fn is_number(item: Option<&Item>, number: u16) -> bool {
    item.and_then(Item::as_integer) == Some(number.into())
}

fn find(tables: &ArrayOfTables, key: &str, is: impl Fn(Option<&Item>) -> bool) -> Option<usize> {
    tables.iter().position(|table| is(table.get(key)))
}

fn target_table<'a>(document: &'a mut DocumentMut, target: &str) -> Result<&'a mut Table, EditError> {
    let targets = tables(document.as_table_mut(), "target", "target")?;
    let index = find(targets, "name", |name| is_name(name, target));
    index
        .and_then(|index| targets.get_mut(index))
        .ok_or_else(|| EditError::NoTarget(target.to_owned()))
}

/// The `[[key]]` below a table, made when there is none.
fn tables<'a>(parent: &'a mut Table, key: &str, path: &'static str) -> Result<&'a mut ArrayOfTables, EditError> {
    let item = parent
        .entry(key)
        .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    item.as_array_of_tables_mut().ok_or(EditError::Form(path))
}

/// A table that looks like the one it follows.
fn new_table(siblings: &ArrayOfTables) -> Table {
    let prefix = siblings
        .iter()
        .last()
        .and_then(|table| table.decor().prefix()?.as_str());
    let indent = prefix.map_or("", |prefix| prefix.rsplit('\n').next().unwrap_or(""));
    let blank = |c: char| c == ' ' || c == '\t';
    indented(if indent.chars().all(blank) { indent } else { "" })
}

fn indented(indent: &str) -> Table {
    let mut table = Table::new();
    table.decor_mut().set_prefix(format!("\n{indent}"));
    table
}

fn set(table: &mut Table, keys: &Keys) {
    for (key, setting) in keys {
        match setting {
            Some(setting) => put(table, key, setting),
            None => {
                table.remove(key);
            }
        }
    }
}

/// Sets a key; what stands around its value stays.
fn put(table: &mut Table, key: &str, setting: &Setting) {
    let mut value = match setting {
        Setting::Flag(flag) => Value::from(*flag),
        Setting::Number(number) => Value::from(*number),
        Setting::Text(text) => Value::from(text.as_str()),
        Setting::Texts(texts) => Value::from_iter(texts.iter().map(String::as_str)),
        Setting::Numbers(numbers) => Value::from_iter(numbers.iter().copied()),
    };
    if let Some(Item::Value(old)) = table.get_mut(key) {
        *value.decor_mut() = old.decor().clone();
        *old = value;
        return;
    }
    let prefix = table.decor().prefix().and_then(|prefix| prefix.as_str());
    let indent = prefix
        .and_then(|prefix| prefix.rsplit('\n').next())
        .unwrap_or("")
        .to_owned();
    table.insert(key, Item::Value(value));
    if let Some(mut key) = table.key_mut(key) {
        key.leaf_decor_mut().set_prefix(indent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# my disks
[[target]]
name = "iqn.2026-11.com.example:A"   # the first
  # the big one
  [[target.lun]]
  lun = 0
  file = "a.img"   # on the RAID
  size = "1MiB"    # grows

# another
[[target]]
name = "iqn.2026-11.com.example:b"

[[portal]]
listen = "127.0.0.1"   # home
"#;

    fn keys(list: &[(&str, Setting)]) -> Keys {
        list.iter()
            .map(|(key, setting)| ((*key).to_owned(), Some(setting.clone())))
            .collect()
    }

    fn edited(edit: &Edit, text: &str) -> String {
        let (text, _) = edit.apply(text).unwrap();
        let (_, problems) = super::super::parse(None, &text, std::path::Path::new("/x"))
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(problems.is_empty(), "{problems}\n{text}");
        text
    }

    fn target(name: &str) -> String {
        format!("iqn.2026-11.com.example:{name}")
    }

    #[test]
    fn a_lun_is_added_where_it_belongs_and_everything_else_stays() {
        let edit = Edit::CreateLun {
            target: target("a"),
            lun: None,
            keys: keys(&[
                ("memory", Setting::Text("2MiB".to_owned())),
                ("shared", Setting::Flag(true)),
            ]),
        };
        assert_eq!(edit.apply(TEXT).unwrap().1, Some(1));
        let text = edited(&edit, TEXT);
        let added = "\n  [[target.lun]]\n  lun = 1\n  memory = \"2MiB\"\n  shared = true\n";
        let expected = TEXT.replace("# grows\n", &format!("# grows\n{added}"));
        assert_eq!(text, expected);
        // And goes again without a trace.
        let edit = Edit::RemoveLun {
            target: target("A"),
            lun: 1,
        };
        assert_eq!(edited(&edit, &text), TEXT);
    }

    #[test]
    fn values_change_and_comments_stay() {
        let edit = Edit::SetLun {
            target: target("a"),
            lun: 0,
            keys: keys(&[
                ("size", Setting::Text("2MiB".to_owned())),
                ("read_only", Setting::Flag(true)),
            ]),
        };
        let text = edited(&edit, TEXT);
        assert_eq!(
            text,
            TEXT.replace("\"1MiB\"    # grows\n", "\"2MiB\"    # grows\n  read_only = true\n")
        );
        let edit = Edit::SetLun {
            target: target("a"),
            lun: 0,
            keys: Keys::from([("read_only".to_owned(), None), ("missing".to_owned(), None)]),
        };
        assert_eq!(edited(&edit, &text), TEXT.replace("1MiB", "2MiB"));
    }

    #[test]
    fn targets_come_go_and_change_their_name_but_not_their_serials() {
        let create = Edit::CreateTarget {
            target: target("C"),
            keys: keys(&[("portal_groups", Setting::Numbers(vec![1, 2]))]),
            lun: Some(keys(&[("memory", Setting::Text("1MiB".to_owned()))])),
        };
        let text = edited(&create, TEXT);
        assert!(
            text.contains(
                "name = \"iqn.2026-11.com.example:c\"\nportal_groups = [1, 2]\n\n  [[target.lun]]\n  lun = 0\n"
            ),
            "{text}"
        );
        assert_eq!(create.apply(&text), Err(EditError::TargetThere(target("C"))));
        assert_eq!(edited(&Edit::RemoveTarget { target: target("c") }, &text), TEXT);

        let rename = Edit::RenameTarget {
            target: target("a"),
            to: target("z"),
        };
        let text = edited(&rename, TEXT);
        let serial = default_serial(&target("a"), 0);
        assert!(
            text.contains("name = \"iqn.2026-11.com.example:z\"   # the first"),
            "{text}"
        );
        assert!(text.contains(&format!("  serial = \"{serial}\"\n")), "{text}");
        assert!(rename.apply(&text).is_err(), "it is there no more");
    }

    #[test]
    fn what_cannot_be_edited_is_said() {
        let remove = |lun| Edit::RemoveLun {
            target: target("a"),
            lun,
        };
        assert!(matches!(remove(7).apply(TEXT), Err(EditError::NoLun { lun: 7, .. })));
        assert!(matches!(
            Edit::RemoveTarget { target: target("x") }.apply(TEXT),
            Err(EditError::NoTarget(_))
        ));
        let there = Edit::CreateLun {
            target: target("a"),
            lun: Some(0),
            keys: Keys::new(),
        };
        assert!(matches!(there.apply(TEXT), Err(EditError::LunThere { lun: 0, .. })));
        let inline = "target = [{ name = \"iqn.2026-11.com.example:a\", lun = [{ lun = 0 }] }]";
        assert_eq!(remove(0).apply(inline), Err(EditError::Form("target")));
        assert!(matches!(remove(0).apply("= nonsense"), Err(EditError::Toml(_))));
    }
}
