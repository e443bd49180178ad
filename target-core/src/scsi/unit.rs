//! A logical unit: a medium, its identity, and who may use it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use super::Identity;
use super::attention::Attention;
use super::device::Path;
use super::generation::{Drain, Generations};
use super::mode::Modes;
use super::reservations::Reservations;
use super::table::Access;
use crate::lun::{Medium, MediumError, Properties};

/// How a logical unit is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogicalUnitOptions {
    /// Admit several initiator names at a time. Only for initiators that know of each other.
    pub shared: bool,
    /// Refuse every command that would change the medium.
    pub read_only: bool,
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
    /// Held for writing by commands that read, compare and write back, for reading by every other command while
    /// it changes the medium. It costs the latter some nanoseconds and spares keeping count of who else there is.
    pub(super) exclusive: RwLock<()>,
    generations: Generations,
    modes: Modes,
}

#[derive(Debug, Default)]
struct State {
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
        Arc::new(Self {
            properties: medium.properties(),
            medium,
            identity,
            shared: AtomicBool::new(options.shared),
            read_only: AtomicBool::new(options.read_only),
            state: Mutex::default(),
            reserved: AtomicBool::new(false),
            exclusive: RwLock::default(),
            generations: Generations::default(),
            modes: Modes::default(),
        })
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
        }
    }

    /// The medium's properties, which do not change while it is open.
    pub fn properties(&self) -> Properties {
        self.properties
    }

    /// Number of logical blocks now.
    pub fn blocks(&self) -> u64 {
        self.medium.size_bytes() / u64::from(self.properties.block_bytes)
    }

    /// Resizes the medium and tells every initiator (CAPACITY DATA HAS CHANGED).
    pub fn resize(&self, new_size_bytes: u64) -> Result<(), MediumError> {
        self.medium.resize(new_size_bytes)?;
        self.lock().establish(Attention::CapacityChanged);
        Ok(())
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

    /// Sets whether the unit may be written. Commands that have not begun are refused from now on.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::SeqCst);
        self.lock().establish(Attention::ModeParametersChanged);
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

    /// Registers a path, admitted or not. The unit keeps no path alive.
    pub(super) fn register(&self, path: &Arc<Path>) {
        let mut state = self.lock();
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
            || self.with_reservations(|held| held.allow(path.nexus_id(), path.port(), access))
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
        for (port, attention) in state.reservations.take_news() {
            let told = state
                .paths()
                .filter(|other| other.port() == &*port && other.nexus_id() != path.nexus_id());
            told.for_each(|other| other.pending().establish(attention));
        }
        result
    }

    /// A reset: commands that have not begun will not, reservations by RESERVE (6) end, and every nexus hears
    /// of it.
    pub(super) fn reset(self: &Arc<Self>, path: &Path, attention: Attention) -> Drain {
        // First of all: whoever has heard of the reset must not be overtaken by a command from before it.
        let seen_idle = {
            let _alone = self.lock();
            self.generations.advance()
        };
        self.modes.reset();
        self.change_reservations(path, Reservations::reset);
        self.lock().establish(attention);
        Drain::new(Arc::clone(self), seen_idle)
    }

    /// What MODE SELECT has changed.
    pub(super) fn modes(&self) -> &Modes {
        &self.modes
    }

    /// Tells every nexus but that of `path`.
    pub(super) fn tell_others(&self, path: &Path, attention: Attention) {
        let state = self.lock();
        let others = state.paths().filter(|other| other.nexus_id() != path.nexus_id());
        others.for_each(|other| other.pending().establish(attention));
    }

    /// Which commands came before the last reset.
    pub(super) fn generations(&self) -> &Generations {
        &self.generations
    }

    /// The nexus of a path is gone.
    pub(super) fn detach(&self, path: &Path) {
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
