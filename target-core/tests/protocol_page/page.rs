//! Reading the tables of `docs/protocol.md`, strictly: what cannot be read is a failure, not a row less.

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// One table, found by the heading above it.
#[derive(Debug)]
pub struct Table {
    pub heading: String,
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

/// One row; `line` says where to look when it is wrong.
#[derive(Debug, Clone)]
pub struct Row {
    pub line: usize,
    cells: Vec<String>,
}

impl Row {
    pub fn cell(&self, at: usize) -> &str {
        &self.cells[at]
    }

    /// A cell of exactly two hex digits.
    pub fn hex(&self, at: usize) -> u8 {
        hex(self.cell(at)).unwrap_or_else(|| self.fail(&format!("`{}` is not two hex digits", self.cell(at))))
    }

    /// The same, or empty.
    pub fn hex_or_empty(&self, at: usize) -> Option<u8> {
        (!self.cell(at).is_empty()).then(|| self.hex(at))
    }

    /// Sense key, additional sense code and qualifier as `05/24/00`.
    pub fn sense(&self, at: usize) -> Sense {
        sense(self.cell(at)).unwrap_or_else(|| self.fail(&format!("`{}` is not a sense code", self.cell(at))))
    }

    pub fn fail(&self, what: &str) -> ! {
        panic!("docs/protocol.md line {}: {what}\n{:?}", self.line, self.cells)
    }
}

pub type Sense = (u8, u8, u8);

/// Two hex digits, in capitals.
pub fn hex(text: &str) -> Option<u8> {
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

pub fn sense(text: &str) -> Option<Sense> {
    let parts: Option<Vec<u8>> = text.split('/').map(hex).collect();
    match parts?[..] {
        [key, code, qualifier] => Some((key, code, qualifier)),
        _ => None,
    }
}

pub fn show(sense: Sense) -> String {
    format!("{:02X}/{:02X}/{:02X}", sense.0, sense.1, sense.2)
}

/// The table under a heading, which must have just these columns.
pub fn table(heading: &str, columns: &[&str]) -> Table {
    let mut found = tables();
    found.retain(|table| table.heading == heading);
    assert_eq!(found.len(), 1, "docs/protocol.md: tables under the heading {heading:?}");
    let table = found.remove(0);
    assert_eq!(table.columns, columns, "docs/protocol.md: columns of {heading:?}");
    assert!(!table.rows.is_empty(), "docs/protocol.md: {heading:?} has no rows");
    table
}

/// Every table of the page.
pub fn tables() -> Vec<Table> {
    read(PAGE).unwrap_or_else(|problem| panic!("docs/protocol.md: {problem}"))
}

fn read(page: &str) -> Result<Vec<Table>, String> {
    let mut tables: Vec<Table> = Vec::new();
    let mut heading = String::new();
    let mut headings = BTreeSet::new();
    // Lines of the table that is being read.
    let mut open = 0;
    for (number, line) in (1..).zip(page.lines()) {
        if let Some(title) = line.strip_prefix('#') {
            heading = title.trim_start_matches('#').trim().to_owned();
            if !headings.insert(heading.clone()) {
                return Err(format!("line {number}: a second heading {heading:?}"));
            }
        }
        if !line.starts_with('|') {
            if line.trim_start().starts_with('|') || open == 1 {
                return Err(format!("line {number}: a table that breaks off"));
            }
            open = 0;
            continue;
        }
        let cells = cells(line).ok_or_else(|| format!("line {number}: not a row of a table"))?;
        open += 1;
        match (open, tables.last_mut()) {
            (1, _) => {
                if tables.iter().any(|table| table.heading == heading) {
                    return Err(format!("line {number}: a second table under {heading:?}"));
                }
                tables.push(Table {
                    heading: heading.clone(),
                    columns: cells,
                    rows: Vec::new(),
                });
            }
            (2, Some(table)) => {
                if cells.len() != table.columns.len() || cells.iter().any(|cell| cell != "---") {
                    return Err(format!("line {number}: no rule under the head of the table"));
                }
            }
            (_, Some(table)) => {
                if cells.len() != table.columns.len() {
                    return Err(format!(
                        "line {number}: {} cells, not {}",
                        cells.len(),
                        table.columns.len()
                    ));
                }
                table.rows.push(Row { line: number, cells });
            }
            (_, None) => unreachable!("the first line opened a table"),
        }
    }
    Ok(tables)
}

/// The cells of `| a | b |`, without the code marks that surround a whole cell.
fn cells(line: &str) -> Option<Vec<String>> {
    if line.contains("\\|") {
        return None;
    }
    let inner = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
    Some(inner.split('|').map(|cell| plain(cell.trim()).to_owned()).collect())
}

fn plain(cell: &str) -> &str {
    match cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) {
        Some(inner) if !inner.contains('`') => inner,
        _ => cell,
    }
}

#[test]
fn unreadable_tables_are_noticed() {
    let good = "## One\n\n| A | B |\n|---|---|\n| `x` | y |\n";
    let tables = read(good).expect("readable");
    assert_eq!(tables.len(), 1);
    assert_eq!(tables[0].rows[0].cells, ["x", "y"]);
    for bad in [
        "## One\n\n| A | B |\n|---|---|\n| x | y\n",
        "## One\n\n| A | B |\n|---|---|\n| x |\n",
        "## One\n\n| A | B |\n|---|---|\n| x | y | z |\n",
        "## One\n\n| A | B |\n| x | y |\n",
        "## One\n\n| A | B |\n\n| x | y |\n",
        "## One\n\n| A | B |\n|---|---|\n| x | y |\n | v | w |\n",
        "## One\n\n| A |\n|---|\n| x |\n\n| B |\n|---|\n| y |\n",
        "## One\n\n## One\n",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
