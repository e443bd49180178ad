//! A logical unit: a medium, its identity, and who may use it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Identity;
use super::attention::Attention;
use super::generation::Drain;
use super::log::Log;
use super::mode::Modes;
use super::path::{Path, Place};
use super::persist::Keeper;
use super::reservations::Reservations;
use super::size::Sizing;
use super::table::Access;
use super::upkeep::{MediumOptions, Upkeep};
use crate::iscsi::shape::Shaper;
use crate::lun::{Medium, Properties};

/// How a logical unit is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogicalUnitOptions {
    /// Admit several initiator names at a time. Only for initiators that know of each other.
    pub shared: bool,
    /// Refuse every command that would change the medium.
    pub read_only: bool,
    /// What else is offered.
    pub medium: MediumOptions,
}

/// A medium with a name, exported under one LUN or more.
#[derive(Debug)]
pub struct LogicalUnit {
    medium: Arc<dyn Medium>,
    properties: Properties,
    identity: Identity,
    shared: AtomicBool,
    read_only: AtomicBool,
    state: Mutex<State>,
    /// Whether reservations have to be looked at: nearly never, so commands look here first.
    reserved: AtomicBool,
    /// What is going on at the medium.
    upkeep: Upkeep,
    modes: Modes,
    log: Log,
    pub(super) keeper: Keeper,
    pub(super) sizing: Sizing,
    /// Behind the medium, so that it is dropped after it.
    closed: ClosedFlag,
    /// How fast commands may begin.
    shaper: Arc<Shaper>,
}

/// Raised when the unit, and its medium with it, is gone.
#[derive(Debug, Default)]
struct ClosedFlag(Arc<AtomicBool>);

impl Drop for ClosedFlag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct State {
    /// Where the unit is in service.
    places: BTreeSet<Place>,
    /// The paths that reach this unit: of every nexus, and of every command that has outlived its nexus.
    paths: Vec<Weak<Path>>,
    reservations: Reservations,
}

impl LogicalUnit {
    /// A unit of its own: one initiator name at a time, writable.
    pub fn new(medium: Arc<dyn Medium>, identity: Identity) -> Arc<Self> {
        Self::with_options(medium, identity, LogicalUnitOptions::default())
    }

    /// A unit that several initiator names may use at a time.
    pub fn shared(medium: Arc<dyn Medium>, identity: Identity) -> Arc<Self> {
        Self::with_options(
            medium,
            identity,
            LogicalUnitOptions {
                shared: true,
                ..Default::default()
            },
        )
    }

    /// A unit as `options` say.
    pub fn with_options(medium: Arc<dyn Medium>, identity: Identity, options: LogicalUnitOptions) -> Arc<Self> {
        let properties = medium.properties();
        Arc::new(Self {
            properties,
            medium,
            identity,
            shared: AtomicBool::new(options.shared),
            read_only: AtomicBool::new(options.read_only || properties.read_only),
            state: Mutex::default(),
            reserved: AtomicBool::new(false),
            upkeep: Upkeep::new(options.medium),
            sizing: Sizing::default(),
            closed: ClosedFlag::default(),
            modes: Modes::default(),
            log: Log::default(),
            keeper: Keeper::default(),
            shaper: Arc::default(),
        })
    }

    /// How fast commands may begin, over all sessions; to be changed at any time.
    pub fn shaper(&self) -> &Arc<Shaper> {
        &self.shaper
    }

    /// Where the blocks are.
    pub fn medium(&self) -> &dyn Medium {
        &*self.medium
    }

    /// Under which name it is known.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How it is exported now.
    pub fn options(&self) -> LogicalUnitOptions {
        LogicalUnitOptions {
            shared: self.is_shared(),
            read_only: self.is_read_only(),
            medium: self.upkeep.options(),
        }
    }

    /// What is going on at the medium.
    pub(super) fn upkeep(&self) -> &Upkeep {
        &self.upkeep
    }

    /// Ends what runs in the background, a sanitize operation, and waits for it. To be called before the unit is
    /// put away.
    pub fn stop_background_work(&self) {
        self.upkeep.stop();
    }

    /// The medium's properties, which do not change while it is open.
    pub fn properties(&self) -> Properties {
        self.properties
    }

    /// The commands that have begun before now. They go on.
    pub(super) fn pass(&self) -> Drain {
        let state = self.lock();
        state.paths().map(|path| path.generations().pass()).collect()
    }

    /// Name of the initiator that holds the unit, if one does and it is not shared. It does so until its last
    /// nexus is gone, and its last [`Execution`](super::Execution) with it.
    pub fn holder(&self) -> Option<String> {
        if self.is_shared() {
            return None;
        }
        self.lock()
            .paths()
            .find(|path| path.is_admitted())
            .map(|path| path.initiator().to_owned())
    }

    /// Name of an initiator that has a way to the unit, or commands at it.
    pub fn user(&self) -> Option<String> {
        self.lock().paths().next().map(|path| path.initiator().to_owned())
    }

    /// Sets whether the unit may be written. Commands that have not begun are refused from now on; those that have
    /// may still write until the drain is over. Every initiator hears of it (MODE PARAMETERS CHANGED: the WP bit
    /// of the mode parameter header, SBC-4 6.5.1).
    pub fn set_read_only(&self, read_only: bool) -> Drain {
        let read_only = read_only || self.properties.read_only;
        let was = self.read_only.swap(read_only, Ordering::SeqCst);
        if was != read_only {
            self.lock().establish(Attention::ModeParametersChanged);
        }
        self.pass()
    }

    /// Whether nobody may write.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Sets whether several initiator names may use it at a time. Those that do so now go on.
    pub fn set_shared(&self, shared: bool) {
        self.shared.store(shared, Ordering::SeqCst);
    }

    /// Whether several initiator names may use it at a time.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the unit is in service there.
    pub(super) fn put_into_service(&self, place: Place) {
        self.lock().places.insert(place);
    }

    /// The unit is not in service there any more: what has not begun does not, and what comes is refused. Returns
    /// whether that was the last place, and who is still at it.
    pub(super) fn take_out_of_service(&self, place: Place) -> (bool, Drain) {
        let mut state = self.lock();
        state.places.remove(&place);
        let paths = state.paths().filter(|path| path.place() == place);
        let drain = paths.map(|path| path.retire()).collect();
        (state.places.is_empty(), drain)
    }

    /// The same, unless there is a path to that place; then the name of its initiator is returned.
    pub(super) fn take_out_of_unused_service(&self, place: Place) -> Result<bool, String> {
        let mut state = self.lock();
        if let Some(path) = state.paths().find(|path| path.place() == place) {
            return Err(path.initiator().to_owned());
        }
        state.places.remove(&place);
        Ok(state.places.is_empty())
    }

    /// Raised when the medium is closed.
    pub(super) fn closed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.closed.0)
    }

    /// The reservations, for the unit that will be in its place.
    pub(super) fn take_reservations(&self) -> Reservations {
        std::mem::take(&mut self.lock().reservations)
    }

    /// Takes over the persistent reservations of the unit that was in its place.
    pub(super) fn adopt_reservations(&self, mut reservations: Reservations) {
        reservations.reset();
        let mut state = self.lock();
        self.reserved.store(reservations.is_any(), Ordering::Release);
        state.reservations = reservations;
    }

    /// Registers a path, admitted or not. The unit keeps no path alive. A path to where the unit is not in service
    /// any more is of no use; that it is a path nevertheless spares a special case.
    pub(super) fn register(&self, path: &Arc<Path>) {
        let mut state = self.lock();
        if !state.places.contains(&path.place()) {
            let _nothing_runs = path.retire();
            return;
        }
        state.paths.retain(|other| other.strong_count() > 0);
        state.paths.push(Arc::downgrade(path));
        state.admit(path, self.is_shared());
    }

    /// Admits a path that was not, now that the holder may have left.
    pub(super) fn admit(&self, path: &Arc<Path>) -> bool {
        self.lock().admit(path, self.is_shared())
    }

    /// Whether a command of this path may be carried out. A path that is not admitted meets the unit as if the
    /// holder had an exclusive access reservation.
    pub(super) fn allow(&self, path: &Path, admitted: bool, access: Access) -> bool {
        if !admitted && !matches!(access, Access::Always | Access::Harmless | Access::Release) {
            return false;
        }
        !self.reserved.load(Ordering::Acquire)
            || self.with_reservations(|held| held.allow(path.nexus_id(), path.name(), access))
    }

    /// Initiator ports of this initiator that have a way to the unit.
    pub(super) fn ports_of(&self, initiator: &str) -> Vec<Box<str>> {
        let state = self.lock();
        let paths = state.paths().filter(|path| path.initiator() == initiator);
        paths.map(|path| path.port().into()).collect()
    }

    /// Looks at the reservations.
    pub(super) fn with_reservations<T>(&self, look: impl FnOnce(&Reservations) -> T) -> T {
        look(&self.lock().reservations)
    }

    /// Changes the reservations on behalf of a path and tells the ports that have to know.
    pub(super) fn change_reservations<T>(&self, path: &Path, change: impl FnOnce(&mut Reservations) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state.reservations);
        self.reserved.store(state.reservations.is_any(), Ordering::Release);
        for (nexus, attention) in state.reservations.take_news() {
            let told = state
                .paths()
                .filter(|other| *other.name() == nexus && other.nexus_id() != path.nexus_id());
            told.for_each(|other| other.pending().establish(attention));
        }
        result
    }

    /// A reset: commands that have not begun will not, reservations by RESERVE (6) end, and every nexus hears
    /// of it.
    pub(super) fn reset(&self, path: &Path, attention: Attention) -> Drain {
        // First of all: whoever has heard of the reset must not be overtaken by a command from before it.
        let drain = self.abort(|_| true);
        self.modes.reset();
        self.upkeep.removal().reset();
        self.change_reservations(path, Reservations::reset);
        self.lock().establish(attention);
        drain
    }

    /// What MODE SELECT has changed.
    pub(super) fn modes(&self) -> &Modes {
        &self.modes
    }

    /// Tells every nexus.
    pub(super) fn tell_all(&self, attention: Attention) {
        self.lock().establish(attention);
    }

    /// What has been counted.
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Goes over all paths.
    pub(super) fn fold_paths<T>(&self, begin: T, fold: impl Fn(T, &Path) -> T) -> T {
        self.lock().paths().fold(begin, |value, path| fold(value, &path))
    }

    /// Tells every nexus but that of `path`.
    pub(super) fn tell_others(&self, path: &Path, attention: Attention) {
        let state = self.lock();
        let others = state.paths().filter(|other| other.nexus_id() != path.nexus_id());
        others.for_each(|other| other.pending().establish(attention));
    }

    /// Aborts the commands of the paths that `doomed` picks: none begins any more, and those that have begun can be
    /// waited for. Long ones stop early.
    pub(super) fn abort(&self, doomed: impl Fn(&Path) -> bool) -> Drain {
        let state = self.lock();
        let paths = state.paths().filter(|path| doomed(path));
        paths.map(|path| path.generations().abort()).collect()
    }

    /// A nexus does not see the unit any more.
    pub(super) fn take_away(&self, path: &Path) {
        {
            let _alone = self.lock();
            let _left = path.retire();
        }
        self.detach(path);
    }

    /// The nexus of a path is gone.
    pub(super) fn detach(&self, path: &Path) {
        self.upkeep.removal().prevent(path.nexus_id(), false);
        self.change_reservations(path, |held| held.release_unit(path.nexus_id()));
    }
}

impl State {
    fn paths(&self) -> impl Iterator<Item = Arc<Path>> + '_ {
        // A path outlives its nexus while a command of it exists, which may still write: until then the unit
        // is not free for another initiator.
        self.paths.iter().filter_map(Weak::upgrade)
    }

    fn establish(&self, attention: Attention) {
        self.paths().for_each(|path| path.pending().establish(attention));
    }

    fn admit(&self, path: &Arc<Path>, shared: bool) -> bool {
        let free = shared
            || !self
                .paths()
                .any(|other| other.is_admitted() && other.initiator() != path.initiator());
        if free {
            path.set_admitted();
        }
        free
    }
}
