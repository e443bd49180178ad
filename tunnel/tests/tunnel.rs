//! The whole way through a stock sshd between two network namespaces: tun devices, addresses, filter, forwarding.
//!
//! Needs root, `ip`, `ss`, `ping`, `setpriv`, `timeout`, bash and sshd.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use support::{CLIENT, Namespace, PATIENCE, SERVER, World, eventually, ip, join};
use tunnel::client::{ConnectError, Up, Ways};

/// Sends bytes through an echo service from a namespace and compares what comes back.
fn echoes(from: &Namespace, to: SocketAddr, bytes: usize) -> std::io::Result<()> {
    from.run(move || async move {
        let stream = std::net::TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let pattern: Vec<u8> = (0..bytes).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
        let (mut reader, mut writer, sent) = (stream.try_clone()?, stream, pattern.clone());
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent)?;
            writer.shutdown(Shutdown::Write)
        });
        let mut got = Vec::new();
        reader.read_to_end(&mut got)?;
        writing.join().unwrap()?;
        assert!(
            got == pattern,
            "{} of {bytes} bytes came back, or wrong ones",
            got.len()
        );
        Ok(())
    })
    .join()
    .unwrap()
}

/// Whether a connection from a namespace gets through.
fn reaches(from: &Namespace, to: SocketAddr) -> bool {
    let connecting = from.run(move || async move { std::net::TcpStream::connect_timeout(&to, Duration::from_secs(2)) });
    connecting.join().unwrap().is_ok()
}

/// Says `x` to an echo service as another user: whether that went well within 3 s, and how far it came.
fn ask_as(from: &Namespace, to: SocketAddr, uid: &str) -> (bool, String) {
    let ask = format!(
        "echo asking; exec 3<>/dev/tcp/{}/{} && echo connected && echo x >&3 && echo got $(head -n1 <&3)",
        to.ip(),
        to.port()
    );
    let user = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"];
    let command = [&user[..], &["timeout", "3", "bash", "-c", &ask]].concat();
    from.exec(&command)
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

#[test]
fn packets_cross_and_nothing_stays_behind() {
    let world = World::new("");
    let (client_before, server_before) = (world.client.state(), world.server.state());
    let mut serving = world.serve(|_| {});
    let holding = world.connect(world.options("root")).unwrap();
    assert_eq!(holding.addresses(), ("172.18.0.2".to_owned(), "172.18.0.1".to_owned()));
    assert!(matches!(&holding.up, Up::Tunnel { mtu: 65520, portal_ports, .. } if *portal_ports == [3260]));
    assert_eq!(serving.next_event(), "up farlun0 172.18.0.1 172.18.0.2 0");

    let (ok, said) = world
        .client
        .exec(&["ping", "-c", "3", "-i", "0.2", "-W", "2", "172.18.0.1"]);
    assert!(ok, "{said}");
    let (ok, said) = world
        .client
        .exec(&["ping", "-c", "1", "-W", "2", "-s", "60000", "172.18.0.1"]);
    assert!(ok, "a jumbo packet: {said}");
    echoes(&world.client, holding.up.portals()[0], 20 << 20).unwrap();
    assert!(
        !reaches(&world.client, at("172.18.0.1", support::SSH_PORT)),
        "only portals are reached"
    );
    let (ok, said) = world.server.exec(&["ping", "-c", "1", "-W", "1", "172.18.0.2"]);
    assert!(!ok, "the server does not look into the client: {said}");

    holding.stop().unwrap();
    assert_eq!(serving.next_event(), "down farlun0 0 none");
    serving.stop();
    assert_eq!(world.client.state(), client_before);
    assert_eq!(world.server.state(), server_before);
    assert!(!world.file("tunnel.sock").exists());
}

#[test]
fn other_users_do_not_reach_the_portals() {
    let world = World::new("");
    let _serving = world.serve(|_| {});
    let holding = world.connect(world.options("root")).unwrap();
    let portal = holding.up.portals()[0];
    let (ok, said) = ask_as(&world.client, portal, "0");
    assert!(ok && said.contains("got x"), "root: {said}");
    let (ok, said) = ask_as(&world.client, portal, "65534");
    assert!(
        !ok && said.contains("asking") && !said.contains("connected"),
        "another user: {said}"
    );
    let (ok, said) = ask_as(&world.client, portal, "0");
    assert!(ok && said.contains("got x"), "root afterwards: {said}");
}

#[test]
fn addresses_in_use_on_either_end_are_avoided() {
    let world = World::new("");
    let _serving = world.serve(|_| {});
    ip(&world.client.0, "link add docker0 type veth peer name docker1");
    ip(&world.client.0, "addr add 172.18.0.1/16 dev docker0");
    ip(&world.server.0, "route add unreachable 172.30.253.0/30");
    let holding = world.connect(world.options("root")).unwrap();
    assert_eq!(holding.addresses().1, "172.30.253.5");
    echoes(&world.client, holding.up.portals()[0], 100_000).unwrap();
}

#[test]
fn clients_get_links_of_their_own() {
    let world = World::new("");
    let serving = world.serve(|options| options.clients_max = 2);
    let first = world.connect(world.options("root")).unwrap();
    let second = world.connect(world.options("root")).unwrap();
    assert_eq!(first.addresses().1, "172.18.0.1");
    assert_eq!(second.addresses().1, "172.18.0.5");
    assert!(serving.next_event().starts_with("up farlun0") && serving.next_event().starts_with("up farlun1"));
    echoes(&world.client, second.up.portals()[0], 100_000).unwrap();
    let options = tunnel::client::ConnectOptions {
        ways: Ways::Socket,
        ..world.options("root")
    };
    let error = world.connect(options.clone()).unwrap_err().to_string();
    assert!(error.contains("already has 2 clients"), "{error}");
    first.stop().unwrap();
    assert!(serving.next_event().starts_with("down farlun0"));
    let third = world.connect(options).unwrap();
    assert_eq!(third.addresses().1, "172.18.0.1");
}

#[test]
fn a_portal_is_reached_through_its_device_only() {
    let world = World::new("");
    let _serving = world.serve(|_| {});
    let neighbour = Namespace::new("n");
    join((&world.server, "lan0", "10.78.0.1"), (&neighbour, "lan0", "10.78.0.2"));
    ip(&neighbour.0, "route add 172.18.0.1/32 via 10.78.0.1");
    let holding = world.connect(world.options("root")).unwrap();
    let portal = holding.up.portals()[0];

    // The way is there: a listener without the device's protection is reached.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let open = world.server.run(move || async move {
        let listener = tokio::net::TcpListener::bind("172.18.0.1:3261").await.unwrap();
        tokio::select! {
            () = support::echo(listener) => {}
            _ = stopped => {}
        }
    });
    eventually("the unprotected listener answers", || {
        reaches(&neighbour, at("172.18.0.1", 3261))
    });
    assert!(reaches(&world.server, at("172.18.0.1", 3261)));
    drop(stop);
    open.join().unwrap();

    assert!(!reaches(&neighbour, portal), "a neighbour with a host route");
    assert!(!reaches(&world.server, portal), "a local user of the server");
    echoes(&world.client, portal, 1000).unwrap();
}

#[test]
fn forwarding_where_the_socket_is_not_possible() {
    let world = World::new("");
    let _serving = world.serve(|_| {});
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let target = world.server.run(move || async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:3260").await.unwrap();
        tokio::select! {
            () = support::echo(listener) => {}
            _ = stopped => {}
        }
    });
    eventually("the target listens", || reaches(&world.server, at("127.0.0.1", 3260)));

    // `nobody` may log in, but is not in the socket's group.
    let holding = world.connect(world.options("nobody")).unwrap();
    assert!(
        matches!(&holding.up, Up::Forward { remote_port: 3260, .. }),
        "{:?}",
        holding.up
    );
    let reason = holding.instead_of.clone().unwrap();
    assert!(
        reason.contains("tunnel.sock") && reason.contains("not in the group"),
        "{reason}"
    );
    echoes(&world.client, holding.up.portals()[0], 20 << 20).unwrap();
    assert!(!reaches(&world.server, at(CLIENT, 3260)), "loopback only");
    let (ok, said) = ask_as(&world.client, at("127.0.0.1", 3260), "0");
    assert!(ok && said.contains("got x"), "{said}");
    let (_, said) = ask_as(&world.client, at("127.0.0.1", 3260), "65534");
    assert!(
        said.contains("asking") && !said.contains("got x"),
        "another local user: {said}"
    );
    let mut again = world.options("nobody");
    let error = world.connect(again.clone()).unwrap_err().to_string();
    assert!(
        error.contains("cannot listen on 127.0.0.1:3260") && error.contains("not in the group"),
        "{error}"
    );
    again.ways = Ways::Socket;
    assert!(matches!(world.connect(again), Err(ConnectError::Socket(_))));
    holding.stop().unwrap();

    let mut options = world.options("root");
    options.ways = Ways::Forward;
    options.forward.remote_port = 3333;
    let error = world.connect(options).unwrap_err().to_string();
    assert!(
        error.contains("127.0.0.1:3333 cannot be reached from the SSH server"),
        "{error}"
    );
    drop(stop);
    target.join().unwrap();
}

#[test]
fn an_sshd_that_forbids_both_says_so() {
    let world = World::new("AllowStreamLocalForwarding no\nAllowTcpForwarding no");
    let _serving = world.serve(|_| {});
    let error = world.connect(world.options("root")).unwrap_err().to_string();
    assert!(error.contains("sshd does not allow it"), "{error}");
    assert!(
        error.contains("forwarding was tried because") && error.contains("AllowStreamLocalForwarding off"),
        "{error}"
    );
}

#[test]
fn the_end_of_either_side_is_noticed() {
    let mut world = World::new("");
    let mut serving = world.serve(|_| {});
    let holding = world.connect(world.options("root")).unwrap();
    assert!(serving.next_event().starts_with("up"));
    serving.stop();
    assert!(serving.next_event().starts_with("down farlun0 0 none"));
    let error = holding.ended().unwrap_err();
    assert!(error.contains("the server closed the tunnel"), "{error}");

    let serving = world.serve(|_| {});
    let holding = world.connect(world.options("root")).unwrap();
    assert!(serving.next_event().starts_with("up"));
    drop(world.sshd.take());
    // The listener is gone; the session's own process still lives, so it is cut off by name of its connection.
    let (ok, said) = world.server.exec(&["ss", "-K", "sport", "=", ":2222"]);
    assert!(ok, "{said}");
    let error = holding.ended().unwrap_err();
    assert!(error.contains("the SSH connection was lost"), "{error}");
    assert!(serving.next_event().starts_with("down"));
    let error = world.connect(world.options("root")).unwrap_err().to_string();
    assert!(
        error.contains(&format!("{SERVER} refuses connections on port 2222")),
        "{error}"
    );
}

#[test]
fn nonsense_at_the_socket_does_no_harm() {
    use std::os::unix::net::UnixStream;
    let world = World::new("");
    let serving = world.serve(|_| {});
    let say = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(world.file("tunnel.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert_eq!(say(b"GET / HTTP/1.1\r\n\r\n"), "", "a stranger is told nothing");
    let other_version = say(b"FARLUNTN\0\x09\x01\x01\0\0");
    assert!(
        other_version.contains("speaks version 1 of the tunnel protocol, the client 9"),
        "{other_version}"
    );
    let too_long = say(b"FARLUNTN\0\x01\x01\x01\xff\xff");
    assert!(too_long.contains("65535 bytes"), "{too_long}");
    let out_of_order = say(b"FARLUNTN\0\x01\x03\x01\0\x01\x01");
    assert!(
        out_of_order.contains("an answer where a hello was expected"),
        "{out_of_order}"
    );

    let hello = b"FARLUNTN\0\x01\x01\x01\0\x0e\0\0\0\x03\x05\xdc\0\0\0\0\0\0\0\0";
    let accept = b"FARLUNTN\0\x01\x03\x01\0\x01\x01";
    let oversized = b"\xff\xff";
    say(&[&hello[..], accept, oversized].concat());
    assert!(serving.next_event().starts_with("up farlun0"));
    let down = serving.next_event();
    assert!(
        down.contains("a packet of 65535 bytes was announced, but 1500 was agreed"),
        "{down}"
    );

    let holding = world.connect(world.options("root")).unwrap();
    echoes(&world.client, holding.up.portals()[0], 1000).unwrap();
}
