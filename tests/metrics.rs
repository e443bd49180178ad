//! What Prometheus gets to see, and the dashboard that shows it.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use initiator::{LoginOptions, Lun, Session};
use rustix::process::Signal;
use support::{LIMIT, Server, farlun};

const DISK: &str = "iqn.2026-11.com.example:disk";

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// The answer to a request, head and body.
fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn page(address: SocketAddr) -> String {
    let (head, body) = ask(
        address,
        "GET /metrics HTTP/1.1\r\nHost: farlun\r\nConnection: close\r\n\r\n",
    );
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("openmetrics-text"), "{head}");
    body
}

/// Samples by name and labels. Everything in the text has to be a sample or a comment of the format.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut samples = BTreeMap::new();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            match words.next().unwrap() {
                "TYPE" => {
                    let (name, kind) = (words.next().unwrap(), words.next().unwrap());
                    assert!(types.insert(name, kind).is_none(), "{name} is there twice");
                }
                "HELP" | "UNIT" | "EOF" => {}
                other => panic!("{other} in {line}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let family = name.split('{').next().unwrap();
        let known = types.iter().any(|(known, kind)| match *kind {
            "counter" => family.strip_suffix("_total") == Some(known),
            "histogram" => ["_bucket", "_sum", "_count"]
                .iter()
                .any(|end| family.strip_suffix(end) == Some(known)),
            _ => family == *known,
        });
        assert!(known, "{name} has no type");
        samples.insert(name.to_owned(), value.parse::<f64>().unwrap());
    }
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted_and_every_metric_of_the_dashboard_is_there() {
    let home = tempfile::tempdir().unwrap();
    let (portal, metrics) = (free_address(), free_address());
    let file = home.path().join("farlun.toml");
    let text = format!(
        "[[target]]\nname = \"{DISK}\"\n[[target.lun]]\nlun = 0\nfile = \"a.img\"\nsize = \"8MiB\"\n\
         [[portal]]\nlisten = \"{portal}\"\n[metrics]\nlisten = \"{metrics}\"\n"
    );
    std::fs::write(&file, &text).unwrap();
    let server = Server::start(farlun(home.path()).arg("serve").arg(&file));
    assert!(
        server.said.contains(&format!("metrics at http://{metrics}/metrics")),
        "{}",
        server.said
    );

    let log_in = async |name: &str, target: &str| {
        let stream = initiator::connect("127.0.0.1", portal.port(), 5_000).await.unwrap();
        Session::login(stream, &LoginOptions::new(name, Some(target))).await
    };
    let mut session = log_in("iqn.2026-11.com.example:home", DISK).await.unwrap();
    assert!(
        log_in("iqn.2026-11.com.example:home", "iqn.2026-11.com.example:no")
            .await
            .is_err()
    );
    let lun = Lun::from_number(0);
    for lba in 0..10 {
        session.write16(lun, lba * 8, 512, vec![1; 4096], false).await.unwrap();
    }
    assert_eq!(session.read16(lun, 0, 8, 512).await.unwrap().len(), 4096);
    session.synchronize_cache(lun).await.unwrap();

    let during = samples(&page(metrics));
    let lun_labels = format!("target=\"{DISK}\",lun=\"0\"");
    let value = |samples: &BTreeMap<String, f64>, name: &str| {
        *samples.get(name).unwrap_or_else(|| panic!("{name}: {samples:?}"))
    };
    let of_lun = |name: &str| format!("{name}{{{lun_labels}}}");
    assert_eq!(value(&during, &format!("farlun_sessions{{target=\"{DISK}\"}}")), 1.0);
    assert_eq!(
        value(&during, &format!("farlun_logins_total{{target=\"{DISK}\"}}")),
        1.0
    );
    assert_eq!(value(&during, "farlun_logins_refused_total"), 1.0);
    assert_eq!(value(&during, &of_lun("farlun_lun_size_bytes")), f64::from(8 << 20));
    assert_eq!(value(&during, &of_lun("farlun_lun_written_bytes_total")), 40960.0);
    assert_eq!(value(&during, &of_lun("farlun_flush_duration_seconds_count")), 1.0);
    let writes = format!("farlun_commands_total{{{lun_labels},opcode=\"8a\",status=\"good\"}}");
    assert_eq!(value(&during, &writes), 10.0);
    let bucket = |samples: &BTreeMap<String, f64>, le: &str| {
        value(
            samples,
            &format!("farlun_command_duration_seconds_bucket{{le=\"{le}\",{lun_labels}}}"),
        )
    };
    let count = value(&during, &of_lun("farlun_command_duration_seconds_count"));
    assert!(count >= 12.0 && bucket(&during, "+Inf") == count, "{during:?}");

    // A session that is over is counted for ever.
    session.logout().await.unwrap();
    let gone = format!("farlun_sessions{{target=\"{DISK}\"}}");
    let start = std::time::Instant::now();
    let after = loop {
        let after = samples(&page(metrics));
        if value(&after, &gone) == 0.0 {
            break after;
        }
        assert!(start.elapsed() < LIMIT);
    };
    assert_eq!(value(&after, &writes), 10.0);

    // Names in the dashboard are names in the text.
    let dashboard = include_str!("../examples/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let exported: BTreeSet<&str> = after.keys().map(|name| name.split('{').next().unwrap()).collect();
    let mut named = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let metrics: Vec<&str> = words.filter(|word| word.starts_with("farlun_")).collect();
            assert!(!metrics.is_empty(), "{expression}");
            named.extend(metrics);
        }
    }
    for name in &named {
        assert!(exported.contains(name), "{name} is not among {exported:?}");
    }
    // And nothing that is told is left out of it.
    for name in exported {
        let shown = named.contains(name) || ["_sum", "_count"].iter().any(|end| name.ends_with(end));
        assert!(shown, "{name} is not in the dashboard");
    }

    let (head, _) = ask(metrics, "GET / HTTP/1.1\r\nHost: farlun\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let (head, _) = ask(
        metrics,
        "POST /metrics HTTP/1.1\r\nHost: farlun\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");

    // They can be moved and switched off while it serves.
    let moved = free_address();
    std::fs::write(&file, text.replace(&metrics.to_string(), &moved.to_string())).unwrap();
    assert!(farlun(home.path()).arg("reload").status().unwrap().success());
    page(moved);
    assert!(TcpStream::connect(metrics).is_err());
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
}
