//! Texts that differ, and what is told about that.

use super::*;
use crate::config::Source;

const TEXT: &str = r#"
    [[target]]
    name = "iqn.2026-11.com.example:a"
    [[target.lun]]
    lun = 0
    file = "/a.img"
    size = "1MiB"
    [[target.lun]]
    lun = 1
    memory = "1MiB"
    serial = "one"
    [[target]]
    name = "iqn.2026-11.com.example:b"
    [[target.lun]]
    lun = 0
    file = "/b.img"
    [[portal]]
    listen = "127.0.0.1"
"#;

fn desired(text: &str) -> Desired {
    let (file, text) = (None, text.to_owned());
    let (plan, problems) = Source { file, text }.parse().unwrap();
    assert!(problems.is_empty(), "{problems}");
    Desired {
        plan,
        secrets: Secrets::default(),
    }
}

/// What changes when the text does.
fn changes(edits: &[(&str, &str)]) -> Vec<String> {
    let mut text = TEXT.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let changes = diff(&desired(TEXT), &desired(&text));
    changes.iter().map(ToString::to_string).collect()
}

const A: &str = "iqn.2026-11.com.example:a";

#[test]
fn what_looks_different_and_is_the_same_is_no_change() {
    assert_eq!(changes(&[]), Vec::<String>::new());
    let edits = [
        ("[[target]]", "# a comment\n\n[[target]]"),
        ("1MiB", "1024 KiB"),
        (":a\"", ":A\""),
    ];
    assert_eq!(changes(&edits), Vec::<String>::new());
}

#[test]
fn each_change_is_told_by_itself() {
    let lun = |what: &str| vec![format!("~ LUN 0 of {A}: {what}")];
    assert_eq!(changes(&[("1MiB", "2MiB")]), lun("1 MiB to 2 MiB"));
    assert_eq!(
        changes(&[("size", "read_only = true\nshared = true\nsize")]),
        lun("read_only, shared")
    );
    assert_eq!(changes(&[("size", "iops_max = 5\nsize")]), lun("iops_max"));
    assert_eq!(changes(&[("/a.img", "/c.img")]), lun("opened anew for medium"));
    assert_eq!(
        changes(&[("size", "removable = true\nserial = \"x\"\nsize")]),
        lun("opened anew for removable, serial")
    );
    assert_eq!(
        changes(&[("size", "offline = true\nread_only = true\nsize")]),
        lun("offline")
    );
    assert_eq!(
        changes(&[("lun = 1", "lun = 7")]),
        [
            format!("- LUN 1 of {A} (memory, 1 MiB)"),
            format!("+ LUN 7 of {A} (memory, 1 MiB)")
        ]
    );
    let target = "name = \"iqn.2026-11.com.example:b\"";
    assert_eq!(
        changes(&[(
            target,
            &format!("{target}\nalias = \"x\"\ntunnel_only = true\niops_max = 7")
        )]),
        ["~ target iqn.2026-11.com.example:b: alias, tunnel_only, iops_max"]
    );
    assert_eq!(
        changes(&[("listen = \"127.0.0.1\"", "listen = \"127.0.0.1\"\ngroup = 3")]),
        ["- portal 127.0.0.1:3260 (group 1)", "+ portal 127.0.0.1:3260 (group 3)"]
    );
    assert_eq!(
        changes(&[(
            "listen = \"127.0.0.1\"",
            "listen = \"127.0.0.1\"\nannounce = \"nas:860\""
        )]),
        [
            "- portal 127.0.0.1:3260 (group 1)",
            "+ portal 127.0.0.1:3260 (group 1, announced as nas:860)"
        ]
    );
    assert_eq!(
        changes(&[(
            "[[portal]]",
            "[metrics]\nlisten = \"127.0.0.1:9260\"\n[limits]\nidle_ping_ms = 100\n[[portal]]"
        )]),
        ["~ limits, for connections to come", "~ metrics at 127.0.0.1:9260"]
    );
    assert_eq!(
        changes(&[("[[portal]]", "[control]\nenable = false\n[tunnel]\n[[portal]]")]),
        ["~ [tunnel]: after a restart", "~ [control]: after a restart"]
    );
}

#[test]
fn a_target_with_the_same_disks_was_renamed_and_one_with_others_was_not() {
    // Only the name: the serial number of LUN 0 follows from it, so these are other disks.
    let told = changes(&[(":a\"", ":z\"")]);
    assert_eq!(
        told[..2],
        [format!("- target {A}"), "+ target iqn.2026-11.com.example:z".to_owned()]
    );
    let serial = crate::config::default_serial(A, 0);
    let keeps = format!("serial = \"{serial}\"\nsize");
    assert_eq!(
        changes(&[(":a\"", ":z\""), ("size", &keeps)]),
        [format!("~ target {A}: renamed to iqn.2026-11.com.example:z")]
    );
}
