//! The smallest target: one LUN in memory on a loopback portal.
//!
//! `cargo run -p target-core --example memory_target -- 127.0.0.1:3260 256`, the last being the size in MiB.

use std::collections::BTreeMap;
use std::sync::Arc;

use target_core::iscsi::{Limits, Node, Portal, Target};
use target_core::lun::MemoryMedium;
use target_core::scsi::{Device, Identity, LogicalUnit};
use target_core::server::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let portal = arguments.next().unwrap_or_else(|| "127.0.0.1:3260".to_owned());
    let size_mib: u64 = arguments.next().map_or(Ok(256), |mib| mib.parse())?;
    let medium = MemoryMedium::new(size_mib << 20, 512)?;
    let identity = Identity {
        vendor: "FARLUN".to_owned(),
        product: "MEMORY".to_owned(),
        revision: "0".to_owned(),
        serial: "example0".to_owned(),
    };
    let unit = LogicalUnit::shared(Arc::new(medium), identity);
    let device = Device::new(BTreeMap::from([(0, unit)]));
    let target = Target::new("iqn.2026-11.net.farlun:example", None, device);
    let server = Server::new(Node::new(Limits::default(), [target]));
    let listener = tokio::net::TcpListener::bind(&portal).await?;
    println!("ready on {portal}");
    server
        .serve(listener, Portal::default(), async {
            drop(tokio::signal::ctrl_c().await)
        })
        .await;
    server.stop().await;
    Ok(())
}
