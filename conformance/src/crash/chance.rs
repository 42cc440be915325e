//! Chance that can be had again: the same seed, the same deaths.

use super::double::Moment;
use super::scene::Scene;
use super::stage::Death;
use super::trial::{Plan, Way};
use std::time::Duration;

/// xorshift64*.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    /// Below `n`, which is not 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(drawn).unwrap_or_default() % n.max(1)
    }
    fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }
    /// One to four deaths of one trial; those after the first come while it is gone on with.
    pub(super) fn plan(&mut self, points: &dyn Fn(Scene) -> (Vec<String>, Duration)) -> Plan {
        let scene = self.one(&Scene::ALL).copied().unwrap_or(Scene::Single);
        let (points, takes) = points(scene);
        let count = 1 + self.below(4);
        let deaths = (0..count).map(|i| self.death(i == 0, &points, takes)).collect();
        let way = if self.below(3) == 0 { Way::Serve } else { Way::Resume };
        Plan { scene, deaths, way }
    }
    fn death(&mut self, first: bool, points: &[String], takes: Duration) -> Death {
        match self.below(10) {
            0..=4 => {
                let point = self.one(points).cloned().unwrap_or_default();
                // A process that goes on passes fewer points than one that begins.
                let name = point.rsplit_once('/').map_or("", |(name, _)| name);
                Death::At(if first { point.clone() } else { format!("{name}/{}", 1 + self.below(3)) })
            }
            5..=6 => {
                let moment = self.one(&Moment::ALL).copied().unwrap_or(Moment::ModelAsked);
                Death::By(moment, 1 + u32::try_from(self.below(4)).unwrap_or(0))
            }
            _ => {
                let most = usize::try_from(takes.as_micros()).unwrap_or(usize::MAX).max(1);
                Death::After(Duration::from_micros(self.below(most) as u64))
            }
        }
    }
}
