//! The reps that a device's pings name, numbered by the device: what is stored of a device then means the same in any lane's memory.

use crate::track::names::Names;
use crate::track::ping::NO_REP;

/// Numbers of the lane by numbers of the device, in the order of first sight. Most devices know one or none.
#[derive(Clone, Debug)]
pub(crate) struct Reps {
    first: u32,
    #[allow(clippy::box_collection, reason = "few devices have any, all have the field")]
    others: Option<Box<Vec<u32>>>,
}

impl Reps {
    pub(crate) const fn new() -> Reps {
        Reps { first: NO_REP, others: None }
    }

    /// The device's number of a rep.
    #[inline]
    pub(crate) fn local(&mut self, rep: u32) -> u32 {
        if rep == NO_REP {
            NO_REP
        } else if self.first == rep {
            0
        } else {
            self.other(rep)
        }
    }

    fn other(&mut self, rep: u32) -> u32 {
        if self.first == NO_REP {
            self.first = rep;
            return 0;
        }
        let others = self.others.get_or_insert_default();
        let held = others.iter().position(|other| *other == rep);
        let at = held.unwrap_or_else(|| {
            others.reserve_exact(1);
            others.push(rep);
            others.len() - 1
        });
        at as u32 + 1
    }

    /// The lane's numbers in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let others = self.others.as_ref().map_or(&[][..], |others| others);
        std::iter::once(self.first).filter(|first| *first != NO_REP).chain(others.iter().copied())
    }

    /// The lane's number of a rep; none for no rep, and for one that the device does not know.
    pub(crate) fn global(&self, local: u32) -> Option<u32> {
        let rep = match local.checked_sub(1) {
            None => self.first,
            Some(other) => *self.others.as_ref()?.get(other as usize)?,
        };
        (rep != NO_REP).then_some(rep)
    }

    /// Name of a rep.
    pub(crate) fn name<'a>(&self, names: &'a Names, local: u32) -> Option<&'a str> {
        self.global(local).map(|rep| names.get(rep))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.others.as_ref().map_or(0, |others| 24 + 4 * others.capacity())
    }
}
