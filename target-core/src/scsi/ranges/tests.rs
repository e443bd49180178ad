use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;

use super::*;

const MIB: u64 = 1 << 20;
/// Long enough for a thread to have come to where it would wait.
const MOMENT: Duration = Duration::from_millis(50);

fn always() -> bool {
    true
}

#[test]
fn a_range_is_coded_outwards() {
    for (range, coded) in [
        (0..512, 0..MIB),
        (MIB - 512..MIB + 512, 0..2 * MIB),
        (5 * MIB..5 * MIB, 5 * MIB..5 * MIB),
        ((1 << 62) - MIB..1 << 62, (1 << 62) - MIB..1 << 62),
        (
            3 * MIB + 1..(MAX_SLOT_UNITS + 3) * MIB,
            3 * MIB..(MAX_SLOT_UNITS + 3) * MIB,
        ),
    ] {
        let code = encode(&range).unwrap();
        assert_eq!(decode(code), coded, "{range:?}");
        assert_eq!(decode(code | PARKED), coded, "{range:?}");
    }
    assert_eq!(encode(&(0..(MAX_SLOT_UNITS + 1) * MIB)), None);
}

#[test]
fn shared_claims_do_not_keep_each_other_out() {
    let ranges = Ranges::default();
    // More than there are slots, and one that is too long for a slot.
    let claims: Vec<_> = (0..2 * SLOTS)
        .map(|_| ranges.share(&(0..512), Wait::Never, always).unwrap())
        .collect();
    let long = ranges.share(&(0..1 << 50), Wait::Never, always).unwrap();
    drop((claims, long));
    assert!(ranges.slots.iter().all(|slot| slot.0.load(Ordering::SeqCst) == 0));
    assert!(ranges.lock().shared.is_empty());
}

#[test]
fn an_exclusive_claim_keeps_out_its_range_and_no_other() {
    let ranges = Ranges::default();
    let seen = ranges.seen().unwrap();
    let alone = ranges.exclude(&(4096..8192), always).unwrap();
    assert!(ranges.is_stale(seen) && ranges.seen().is_none());
    assert_eq!(
        ranges.share(&(0..4097), Wait::Never, always).err(),
        Some(Denied::WouldBlock)
    );
    assert_eq!(
        ranges.share(&(0..1 << 50), Wait::Never, always).err(),
        Some(Denied::WouldBlock)
    );
    assert_eq!(
        ranges.share(&(4096..8192), Wait::Allowed, || false).err(),
        Some(Denied::Cancelled)
    );
    // In the same unit of a slot, and yet elsewhere.
    let before = ranges.share(&(0..4096), Wait::Never, always).unwrap();
    let other = ranges.exclude(&(2 * MIB..3 * MIB), always).unwrap();
    drop((before, alone, other));
    assert!(ranges.seen().is_some());
    ranges.share(&(4096..8192), Wait::Never, always).unwrap();
}

#[test]
fn an_exclusive_claim_waits_for_those_inside_and_goes_before_those_after() {
    let ranges = Ranges::default();
    let inside = ranges.share(&(0..512), Wait::Never, always).unwrap();
    thread::scope(|scope| {
        let alone = scope.spawn(|| ranges.exclude(&(0..512), always).unwrap());
        thread::sleep(MOMENT);
        assert!(!alone.is_finished());
        assert_eq!(
            ranges.share(&(0..512), Wait::Never, always).err(),
            Some(Denied::WouldBlock),
            "new ones come after it"
        );
        let after = scope.spawn(|| drop(ranges.share(&(0..512), Wait::Allowed, always).unwrap()));
        drop(inside);
        let alone = alone.join().unwrap();
        thread::sleep(MOMENT);
        assert!(!after.is_finished());
        drop(alone);
        after.join().unwrap();
    });
}

#[test]
fn waiting_ends_when_the_command_is_not_wanted_any_more() {
    let ranges = Ranges::default();
    let inside = ranges.share(&(0..512), Wait::Never, always).unwrap();
    assert_eq!(ranges.exclude(&(0..512), || false).err(), Some(Denied::Cancelled));
    assert!(ranges.seen().is_some(), "nothing is left of it");
    drop(inside);
}

#[test]
fn a_parked_claim_holds_and_is_waited_for_for_a_while_only() {
    let ranges = Ranges::default();
    for range in [0..512, 0..1 << 50] {
        let parking = Parking::default();
        ranges.share(&range, Wait::Never, always).unwrap().park(&parking);
        let began = Instant::now();
        assert_eq!(ranges.exclude(&(0..512), always).err(), Some(Denied::Busy));
        assert!(began.elapsed() >= Duration::from_millis(MAX_PARKED_WAIT_MS));
        let taken_up = ranges.take_up(&parking).unwrap();
        assert!(ranges.take_up(&parking).is_none());
        let wanted = AtomicBool::new(true);
        thread::scope(|scope| {
            let alone = scope.spawn(|| ranges.exclude(&(0..512), || wanted.load(Ordering::SeqCst)).is_ok());
            thread::sleep(Duration::from_millis(MAX_PARKED_WAIT_MS) + MOMENT);
            assert!(!alone.is_finished(), "what runs is waited for");
            drop(taken_up);
            assert!(alone.join().unwrap());
        });
    }
}

/// Threads add to a counter without any other protection than exclusive claims, among many that share.
#[test]
fn exclusive_claims_exclude() {
    const EACH: u32 = 2000;
    let ranges = Ranges::default();
    let counter = AtomicU32::new(0);
    let inside = AtomicU32::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let adders: Vec<_> = (0..3_u64)
            .map(|number| {
                let (ranges, counter, inside) = (&ranges, &counter, &inside);
                scope.spawn(move || {
                    for _ in 0..EACH {
                        let _alone = ranges.exclude(&(number * 512..2048), always).unwrap();
                        assert_eq!(inside.load(Ordering::SeqCst), 0);
                        let old = counter.load(Ordering::Relaxed);
                        counter.store(old + 1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let claim = ranges.share(&(1536..4096), Wait::Allowed, always).unwrap();
                    inside.fetch_add(1, Ordering::SeqCst);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(claim);
                }
            });
        }
        for adder in adders {
            adder.join().unwrap();
        }
        over.store(true, Ordering::SeqCst);
    });
    assert_eq!(counter.load(Ordering::Relaxed), 3 * EACH);
}
