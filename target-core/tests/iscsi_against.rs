//! The initiator's state machine and the target's against each other: keys of every kind, little memory, a line that
//! breaks at any byte. What was said to be written is there; what was not said is old or new, block by block, and does
//! not change afterwards.

mod support;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use initiator::{Command, LoginOptions, Session, Transfer};
use iscsi_pdu::{Isid, Lun};
use proptest::prelude::*;
use support::{INITIATOR, TARGET, node, read10, write10};
use target_core::iscsi::{Limits, Node, Origin};
use target_core::server::Server;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Blocks that are written to, so few that commands meet.
const BLOCKS: u16 = 48;
const BLOCK_BYTES: usize = 512;
/// UNIT ATTENTION (SPC-5 4.4.8): the command has done nothing.
const CHECK_CONDITION: u8 = 0x02;
const TASK_SET_FULL: u8 = 0x28;

#[derive(Debug, Clone)]
enum Step {
    Write {
        at: u16,
        blocks: u16,
    },
    Read {
        at: u16,
        blocks: u16,
    },
    Flush,
    /// Waits for a command to end.
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    let span = (0..BLOCKS, 1..=BLOCKS).prop_map(|(at, blocks)| (at, blocks.min(BLOCKS - at)));
    prop_oneof![
        4 => span.clone().prop_map(|(at, blocks)| Step::Write { at, blocks }),
        3 => span.prop_map(|(at, blocks)| Step::Read { at, blocks }),
        1 => Just(Step::Flush),
        4 => Just(Step::Collect),
    ]
}

/// One life of a session, and where its line breaks.
#[derive(Debug, Clone)]
struct Life {
    options: LoginOptions,
    steps: Vec<Step>,
    sent_bytes: Option<usize>,
    received_bytes: Option<usize>,
}

fn life() -> impl Strategy<Value = Life> {
    let options = (any::<[bool; 4]>(), 512..9000u32, 512..9000u32, 512..9000u32, 1..=16u32).prop_map(
        |(flags, segment, first, burst, r2ts)| LoginOptions {
            isid: Isid([0x80, 0, 0, 0, 0, 1]),
            header_digest: flags[0],
            data_digest: flags[1],
            initial_r2t: flags[2],
            immediate_data: flags[3],
            max_recv_data_segment_bytes: segment,
            first_burst_bytes: first.min(burst),
            max_burst_bytes: burst,
            max_outstanding_r2t: r2ts,
            ..LoginOptions::new(INITIATOR, Some(TARGET))
        },
    );
    let cut = || prop_oneof![1 => Just(None), 2 => (0..120_000usize).prop_map(Some)];
    (options, prop::collection::vec(step(), 0..40), cut(), cut()).prop_map(
        |(options, steps, sent_bytes, received_bytes)| Life {
            options,
            steps,
            sent_bytes,
            received_bytes,
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..40u32, 1..6usize, 24..200usize, 512..9000u32, 1..=16u16).prop_map(|(window, slots, transfer, burst, r2ts)| {
        Limits {
            command_window: window,
            first_burst_bytes: burst,
            max_burst_bytes: 2 * burst,
            max_outstanding_r2t: r2ts,
            window_memory_bytes: slots * burst as usize,
            transfer_memory_bytes: transfer * 1024,
            ..Limits::default()
        }
    })
}

/// A line that breaks after a number of bytes either way.
struct Line {
    inner: Option<DuplexStream>,
    may_read: usize,
    may_write: usize,
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.may_read == 0 {
            self.inner = None;
        }
        let max = self.may_read.min(buf.remaining());
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let mut bytes = vec![0; max];
        let mut part = ReadBuf::new(&mut bytes);
        std::task::ready!(Pin::new(inner).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        self.may_read -= part.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.may_write == 0 {
            self.inner = None;
        }
        let max = self.may_write.min(buf.len());
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let written = std::task::ready!(Pin::new(inner).poll_write(cx, &buf[..max]))?;
        self.may_write -= written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What each block may hold, as the numbers of the writes that put it there; 0 is what was there first.
struct Model {
    may_hold: Vec<BTreeSet<u32>>,
    last: u32,
}

enum Open {
    /// What the blocks may have held before it, but for what was under way.
    Write {
        at: u16,
        number: u32,
        before: Vec<BTreeSet<u32>>,
    },
    /// What the blocks may have held since it began.
    Read {
        at: u16,
        since: Vec<BTreeSet<u32>>,
        /// No write was under way at any time since: what is read is what is there. Beside a write it may be what was
        /// there before, although the write is answered first: answers go ahead of data.
        undisturbed: bool,
    },
    Flush,
}

impl Model {
    fn span(&self, at: u16, blocks: u16) -> &[BTreeSet<u32>] {
        &self.may_hold[usize::from(at)..usize::from(at + blocks)]
    }
}

fn block(number: u32, at: usize) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    if number > 0 {
        block.fill(number as u8 ^ at as u8);
        block[..4].copy_from_slice(&number.to_be_bytes());
        block[BLOCK_BYTES - 4..].copy_from_slice(&number.to_be_bytes());
    }
    block
}

fn number_in(block_bytes: &[u8], at: usize) -> u32 {
    let number = u32::from_be_bytes(block_bytes[..4].try_into().expect("four bytes"));
    assert_eq!(block_bytes, block(number, at), "block {at} is a mixture");
    number
}

struct World {
    node: Arc<Node>,
    model: Model,
    /// What is under way.
    open: HashMap<initiator::TaskTag, Open>,
    answered: usize,
}

impl World {
    async fn live(&mut self, life: Life) {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let server = Server::new(Arc::clone(&self.node));
        tokio::spawn(async move { server.serve_stream(far, Origin::default()).await });
        let line = Line {
            inner: Some(near),
            may_read: life.received_bytes.unwrap_or(usize::MAX),
            may_write: life.sent_bytes.unwrap_or(usize::MAX),
        };
        let breaks = life.received_bytes.is_some() || life.sent_bytes.is_some();
        let mut session = match Session::login(line, &life.options).await {
            Ok(session) => session,
            Err(error) => return assert!(breaks, "login: {error}"),
        };
        for step in life.steps {
            let going = match step {
                Step::Collect if self.open.is_empty() => true,
                Step::Collect => self.collect(&mut session, breaks).await,
                step => self.begin(&mut session, step),
            };
            if !going {
                break;
            }
        }
        while !self.open.is_empty() && self.collect(&mut session, breaks).await {}
        assert!(breaks || self.open.is_empty());
        // What was not answered may have been done or not, and nothing more comes of it.
        self.open.clear();
    }

    fn begin(&mut self, session: &mut Session<Line>, step: Step) -> bool {
        let lun = Lun::from_number(0);
        let (command, open) = match step {
            Step::Write { at, blocks } => {
                self.model.last += 1;
                let number = self.model.last;
                let under_way: BTreeSet<u32> = self
                    .open
                    .values()
                    .filter_map(|open| match open {
                        Open::Write { number, .. } => Some(*number),
                        _ => None,
                    })
                    .collect();
                let before = self
                    .model
                    .span(at, blocks)
                    .iter()
                    .map(|held| held - &under_way)
                    .collect();
                let places = usize::from(at)..usize::from(at + blocks);
                let data: Vec<u8> = places.clone().flat_map(|at| block(number, at)).collect();
                for at in places {
                    self.model.may_hold[at].insert(number);
                    for open in self.open.values_mut() {
                        let Open::Read {
                            at: start,
                            since,
                            undisturbed,
                        } = open
                        else {
                            continue;
                        };
                        *undisturbed = false;
                        if let Some(held) = at.checked_sub(usize::from(*start)).and_then(|at| since.get_mut(at)) {
                            held.insert(number);
                        }
                    }
                }
                let command = Command::new(
                    lun,
                    iscsi_cdb(write10(at.into(), blocks)),
                    Transfer::Out(Bytes::from(data)),
                );
                (command, Open::Write { at, number, before })
            }
            Step::Read { at, blocks } => {
                let length = u32::from(blocks) * BLOCK_BYTES as u32;
                let command = Command::new(lun, iscsi_cdb(read10(at.into(), blocks)), Transfer::In(length));
                let since = self.model.span(at, blocks).to_vec();
                let undisturbed = !self.open.values().any(|open| matches!(open, Open::Write { .. }));
                let open = Open::Read { at, since, undisturbed };
                (command, open)
            }
            Step::Flush | Step::Collect => {
                let cdb = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                (Command::new(lun, iscsi_cdb(cdb), Transfer::None), Open::Flush)
            }
        };
        match session.submit(command) {
            Ok(tag) => {
                self.open.insert(tag, open);
                true
            }
            Err(_) => false,
        }
    }

    async fn collect(&mut self, session: &mut Session<Line>, breaks: bool) -> bool {
        let completion = match session.next_completion().await {
            Ok(completion) => completion,
            Err(error) => {
                assert!(breaks, "a session that nothing happened to: {error}");
                return false;
            }
        };
        let Some(open) = self.open.remove(&completion.tag) else {
            panic!("an answer to nothing: {completion:?}");
        };
        let outcome = completion.result.expect("an answer as the standard has it");
        self.answered += 1;
        match (outcome.status, open) {
            (0x00, Open::Write { at, number, before }) => {
                for (at, before) in (usize::from(at)..).zip(&before) {
                    let held = &mut self.model.may_hold[at];
                    *held = &*held - before;
                    assert!(held.contains(&number) || !held.is_empty());
                }
            }
            (0x00, Open::Read { at, since, undisturbed }) => {
                assert_eq!(outcome.data.len(), since.len() * BLOCK_BYTES);
                for ((at, bytes), since) in (usize::from(at)..).zip(outcome.data.chunks(BLOCK_BYTES)).zip(&since) {
                    let number = number_in(bytes, at);
                    assert!(
                        since.contains(&number),
                        "block {at} holds {number} and not any of {since:?}"
                    );
                    // Nobody writes: what is there stays.
                    if undisturbed {
                        self.model.may_hold[at].retain(|held| *held == number);
                        assert!(!self.model.may_hold[at].is_empty(), "block {at} went back to {number}");
                    }
                }
            }
            (0x00, Open::Flush) | (CHECK_CONDITION | TASK_SET_FULL, _) => {}
            (status, _) => panic!("status {status:02x}"),
        }
        true
    }
}

fn iscsi_cdb(cdb: [u8; 10]) -> iscsi_pdu::Cdb {
    iscsi_pdu::Cdb::new(&cdb).expect("short enough")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("FARLUN_SOAK_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
    ))]

    #[test]
    fn what_was_said_to_be_written_is_there(limits in limits(), lives in prop::collection::vec(life(), 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World {
                node: node(limits),
                model: Model { may_hold: vec![BTreeSet::from([0]); BLOCKS.into()], last: 0 },
                open: HashMap::new(),
                answered: 0,
            };
            for life in lives {
                world.live(life).await;
            }
            // A last look, over a line that holds.
            let options = LoginOptions { isid: Isid([0x80, 0, 0, 0, 0, 1]), ..LoginOptions::new(INITIATOR, Some(TARGET)) };
            let last = |steps| Life { options: options.clone(), steps, sent_bytes: None, received_bytes: None };
            let look = Step::Read { at: 0, blocks: BLOCKS };
            let before = world.answered;
            world.live(last(vec![look.clone(), Step::Collect, look, Step::Collect])).await;
            assert_eq!(world.answered - before, 2);
            // All memory came back.
            for _ in 0..1000 {
                if world.node.budget.transfer.used_bytes() == 0 && world.node.budget.window.used_bytes() == 0 {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            panic!("memory is held by nobody: {:?}", world.node.budget);
        });
    }
}
