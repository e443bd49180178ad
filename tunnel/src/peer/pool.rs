//! Which address pairs are offered, in what order, and which are in use.
//!
//! The list is fixed: 172.18.0.1 and .2 first, as people are used to, then .5 and .6 and so on, then the same in other
//! corners of the private ranges (RFC 1918), for a host where 172.18.0.0/16 is a container bridge.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Pair;

/// The corners the pairs come from, by their first three bytes.
const BLOCKS: [[u8; 3]; 6] = [
    [172, 18, 0],
    [172, 30, 253],
    [192, 168, 219],
    [10, 218, 43],
    [10, 97, 6],
    [172, 22, 171],
];

/// Pairs in a block: each takes four addresses, as a /30 would.
const PAIRS_PER_BLOCK: u8 = 63;

/// How many pairs of one block a client may call taken before the next block is tried: such a client most likely
/// uses the whole of it.
const TAKEN_PER_BLOCK_MAX: u8 = 3;

/// Routes shorter than this are default routes in disguise (0.0.0.0/1 and 128.0.0.0/1 of some VPNs), in bits.
const SPECIFIC_PREFIX_BITS: u8 = 8;

/// Whether a pair is one of the list. Neither end takes another, lest the one draw to itself what the other sends to
/// some private address beyond its default route.
pub fn on_the_list(pair: Pair) -> bool {
    let [a, b, c, first] = pair.server().octets();
    let listed = BLOCKS.contains(&[a, b, c]) && first % 4 == 1 && first / 4 < PAIRS_PER_BLOCK;
    listed && pair.client().to_bits() == pair.server().to_bits() + 1
}

/// The addresses a host already uses or has specific routes for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupied {
    prefixes: Vec<(Ipv4Addr, u8)>,
}

impl Occupied {
    /// Notes a network by any address in it and its prefix length in bits.
    pub fn add(&mut self, address: Ipv4Addr, bits: u8) {
        if (SPECIFIC_PREFIX_BITS..=32).contains(&bits) {
            self.prefixes.push((address, bits));
        }
    }

    /// Whether this address is somewhere already.
    pub fn has(&self, address: Ipv4Addr) -> bool {
        self.prefixes.iter().any(|(network, bits)| {
            let mask = u32::MAX << (32 - u32::from(*bits));
            (network.to_bits() ^ address.to_bits()) & mask == 0
        })
    }

    /// Whether either address of the pair is somewhere already.
    pub fn has_any(&self, pair: Pair) -> bool {
        self.has(pair.server()) || self.has(pair.client())
    }
}

/// All pairs of one server; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    leased: Arc<Mutex<HashSet<Pair>>>,
}

/// A pair that no other client of this server gets until this is dropped.
#[derive(Debug)]
pub struct Lease {
    pair: Pair,
    leased: Arc<Mutex<HashSet<Pair>>>,
}

/// How far one client has got in the list.
#[derive(Debug, Default)]
pub struct Walk {
    block: usize,
    index: u8,
    taken_in_block: u8,
}

impl Walk {
    fn next(&mut self) -> Option<Pair> {
        loop {
            let [a, b, c] = *BLOCKS.get(self.block)?;
            if self.index < PAIRS_PER_BLOCK && self.taken_in_block < TAKEN_PER_BLOCK_MAX {
                let first = self.index * 4;
                self.index += 1;
                return Pair::new(Ipv4Addr::new(a, b, c, first + 1), Ipv4Addr::new(a, b, c, first + 2));
            }
            *self = Self {
                block: self.block + 1,
                ..Self::default()
            };
        }
    }
}

impl Pool {
    /// The next pair for a client that is free on this host: the one it wishes for first, if it is one of the list,
    /// then along the list. A second call for the same walk means that the client called the last one taken.
    pub fn lease(&self, walk: &mut Walk, wished: Option<Pair>, occupied: &Occupied) -> Option<Lease> {
        let mut leased = lock(&self.leased);
        let mut free = |pair: &Pair| !occupied.has_any(*pair) && leased.insert(*pair);
        let pair = match wished.filter(|pair| on_the_list(*pair) && free(pair)) {
            Some(pair) => pair,
            None => loop {
                let pair = walk.next()?;
                if free(&pair) {
                    walk.taken_in_block += 1;
                    break pair;
                }
            },
        };
        Some(Lease {
            pair,
            leased: Arc::clone(&self.leased),
        })
    }
}

impl Lease {
    /// The pair.
    pub fn pair(&self) -> Pair {
        self.pair
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.leased).remove(&self.pair);
    }
}

fn lock(leased: &Mutex<HashSet<Pair>>) -> MutexGuard<'_, HashSet<Pair>> {
    leased.lock().unwrap_or_else(PoisonError::into_inner)
}
