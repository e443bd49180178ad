//! A tunnel server whose portals echo what they are sent: what `farlun serve` does with a target, in small.
//!
//! `tunnel_server SOCKET [PORT]` needs root. It prints a line per event and stops on Ctrl-C or when its standard
//! input is closed.

use std::collections::HashMap;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tunnel::server::{Event, Link, ServerOptions, TunnelServer, listen_on_link};

async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await
        });
    }
}

fn portal(link: &Link, port: u16) -> std::io::Result<AbortHandle> {
    let listener = TcpListener::from_std(listen_on_link(link, port)?)?;
    Ok(tokio::spawn(echo(listener)).abort_handle())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let socket = args.next().ok_or("usage: tunnel_server SOCKET [PORT]")?;
    let port = args.next().map_or(Ok(3260), |port| port.parse())?;
    let options = ServerOptions {
        socket: socket.into(),
        portal_ports: vec![port],
        ..ServerOptions::default()
    };
    let server = TunnelServer::bind(options)?;
    println!("serving");

    let (sender, mut events) = mpsc::channel(16);
    let portals = tokio::spawn(async move {
        let mut running = HashMap::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::LinkUp { link, ready } => {
                    let started = portal(&link, port).map_err(|error| error.to_string());
                    println!("up {} {} {} uid {}", link.ifname, link.local, link.peer, link.uid);
                    let verdict = started.map(|handle| drop(running.insert(link.id, handle)));
                    // A client that has gone meanwhile is followed by its LinkDown.
                    let _gone = ready.send(verdict);
                }
                Event::LinkDown { link, error, counters } => {
                    if let Some(handle) = running.remove(&link.id) {
                        handle.abort();
                    }
                    let dropped = counters.inbound_drops.total();
                    println!(
                        "down {} dropped {dropped} error {}",
                        link.ifname,
                        error.as_deref().unwrap_or("none")
                    );
                }
            }
        }
    });
    let shutdown = async {
        let mut rest = Vec::new();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = async { tokio::io::stdin().read_to_end(&mut rest).await } => {}
        }
    };
    server.run(sender, shutdown).await;
    portals.await?;
    Ok(())
}
