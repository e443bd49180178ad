//! Up and down again and again: interfaces, routes, sockets and file descriptors stay as they were.
//!
//! Needs root, `ip`, `ss` and sshd. Alone in its file, since file descriptors belong to the whole process.
//! `FARLUN_LEAK_ROUNDS` says how often (5).

mod support;

use support::{World, eventually};
use tunnel::client::Ways;

fn file_descriptors() -> Vec<String> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let mut targets: Vec<_> = open
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.display().to_string())
        // The listing's own directory.
        .filter(|target| !target.ends_with("/fd"))
        .collect();
    targets.sort();
    // Numbers of pipes and sockets differ from time to time, their count does not.
    targets
        .iter()
        .map(|target| target.split(':').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn up_and_down_leaves_everything_as_it_was() {
    let rounds: usize = std::env::var("FARLUN_LEAK_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let world = World::new("");
    let mut serving = world.serve(|_| {});
    let once = |ways: Ways| {
        let mut options = world.options("root");
        options.ways = ways;
        options.forward.listen.set_port(0);
        options.forward.remote_port = support::SSH_PORT;
        let holding = world.connect(options).unwrap();
        if ways == Ways::Socket {
            assert_eq!(holding.addresses().0, "172.18.0.2", "the pair is given back");
            assert!(serving.next_event().starts_with("up farlun0"));
        }
        holding.stop().unwrap();
        if ways == Ways::Socket {
            assert!(serving.next_event().starts_with("down farlun0 0 none"));
        }
    };
    let sockets = |namespace: &support::Namespace| namespace.exec(&["ss", "-tlnH"]).1;
    // What is made once and kept (the runtime's signal pipe, the list of known hosts) is made before counting.
    once(Ways::Socket);
    once(Ways::Forward);
    let links = (world.client.state(), world.server.state());
    let listeners = (sockets(&world.client), sockets(&world.server));
    let before = file_descriptors();
    for _ in 0..rounds {
        once(Ways::Socket);
        once(Ways::Forward);
    }
    assert_eq!((world.client.state(), world.server.state()), links);
    assert_eq!((sockets(&world.client), sockets(&world.server)), listeners);
    eventually("file descriptors are as they were", || file_descriptors() == before);
    serving.stop();
}
