//! The hosts with their members, and what can happen to them.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngCore, SeedableRng};

use crate::check::FASTEST_CLOCK;
use crate::disk::SimDisk;
use crate::host::Process;
use crate::member::{self, Start, Window};
use crate::net::{HostId, Net};
use crate::panics;

/// A host with a disk, and mostly with a process.
struct Seat {
    start: Start,
    disk: SimDisk,
    process: Option<Process>,
    window: Window,
    /// How fast its clock runs.
    rate: f64,
    /// When it is started again.
    starts: Option<Duration>,
    /// When it goes on.
    frozen: Option<Duration>,
    missed: Duration,
    /// Whether it was made to give up.
    may_stop: bool,
}

/// All members.
pub struct Cluster {
    net: Net,
    random: StdRng,
    seats: BTreeMap<HostId, Seat>,
    now: Duration,
    /// How often what was done to members, for the report.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Cluster {
    /// Without members.
    pub fn new(seed: u64, net: Net) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { net, random, seats: BTreeMap::new(), now: Duration::ZERO, faults: BTreeMap::new() }
    }

    /// Adds a host with a member.
    pub fn add(&mut self, start: Start) {
        let host = start.host;
        let disk = SimDisk::new(self.random.next_u64(), host, self.net.clone());
        let seat = Seat {
            start,
            disk,
            process: None,
            window: Window::default(),
            rate: 1.0,
            starts: None,
            frozen: None,
            missed: Duration::ZERO,
            may_stop: false,
        };
        self.seats.insert(host, seat);
        self.start(host);
    }

    /// Takes a host away for good.
    pub fn destroy(&mut self, host: HostId) {
        self.kill(host, true, None);
        self.seats.remove(&host);
    }

    /// The hosts.
    pub fn hosts(&self) -> Vec<HostId> {
        self.seats.keys().copied().collect()
    }

    /// A look into a member.
    pub fn window(&self, host: HostId) -> Option<Window> {
        self.seats.get(&host).map(|seat| seat.window.clone())
    }

    fn start(&mut self, host: HostId) {
        self.net.revive(host);
        let seed = self.random.next_u64();
        let seat = self.seats.get_mut(&host).expect("a host");
        seat.starts = None;
        seat.frozen = None;
        seat.missed = Duration::ZERO;
        seat.window = Window::default();
        let (start, disk, net) = (seat.start.clone(), seat.disk.clone(), self.net.clone());
        seat.process =
            Some(Process::start(member::run(start, disk, net, seed, seat.window.clone())));
    }

    /// Ends a process at once, with or without what was not synced, and starts it again later.
    fn kill(&mut self, host: HostId, power: bool, again_in: Option<Duration>) {
        self.net.silence(host);
        let Some(seat) = self.seats.get_mut(&host) else { return };
        *seat.window.lock().expect("no panic while held") = None;
        seat.process = None;
        // What its tasks do when they are dropped concerns nobody.
        panics::forget();
        self.net.forget(host, !power);
        if power {
            seat.disk.after_power_failure();
        } else {
            seat.disk.after_kill();
        }
        seat.may_stop = false;
        seat.starts = again_in.map(|time| self.now + time);
    }

    /// Lets all hosts run for so long, in any order.
    pub fn step(&mut self, time: Duration) -> Result<(), String> {
        self.now += time;
        let mut hosts = self.hosts();
        hosts.shuffle(&mut self.random);
        for host in hosts {
            let seat = self.seats.get_mut(&host).expect("a host");
            if seat.starts.is_some_and(|at| at <= self.now) {
                self.start(host);
            }
            let seat = self.seats.get_mut(&host).expect("a host");
            let own = time.mul_f64(seat.rate);
            let Some(process) = &mut seat.process else { continue };
            if seat.frozen.is_some_and(|until| until > self.now) {
                seat.missed += own;
                continue;
            }
            if seat.frozen.take().is_some() {
                process.oversleep(std::mem::take(&mut seat.missed));
            }
            process.step(own);
            self.look_after(host)?;
        }
        Ok(())
    }

    /// Whether a process is still as it should be.
    fn look_after(&mut self, host: HostId) -> Result<(), String> {
        let seat = self.seats.get_mut(&host).expect("a host");
        if seat.disk.is_broken() {
            if let Some(why) = seat.disk.why_stopped()
                && !seat.may_stop
            {
                return Err(format!("member {host} gave up: {why}"));
            }
            let again = Duration::from_millis(self.random.random_range(10..5000));
            let power = self.random.random_bool(0.5);
            self.kill(host, power, Some(again));
            return Ok(());
        }
        if let Some(panic) = panics::take() {
            return Err(format!("member {host}: {panic}"));
        }
        let Some(why) = seat.process.as_mut().and_then(Process::ended) else { return Ok(()) };
        if !seat.may_stop {
            return Err(format!("member {host} has ended: {why}"));
        }
        self.kill(host, false, Some(Duration::from_millis(100)));
        Ok(())
    }

    /// Does something bad to somebody.
    pub fn harm(&mut self) {
        let hosts = self.hosts();
        let host = hosts[self.random.random_range(0..hosts.len())];
        let some = Duration::from_millis(self.random.random_range(1..12_000));
        let what = match self.random.random_range(0..15) {
            0..2 => {
                self.kill(host, false, Some(some));
                "kill -9"
            }
            2..4 => {
                self.kill(host, true, Some(some));
                "power failure"
            }
            4 => {
                for host in hosts {
                    let time = Duration::from_millis(self.random.random_range(1..3000));
                    self.kill(host, true, Some(time));
                }
                "power failure of all"
            }
            5..7 => {
                let fuse = self.random.random_range(1..200);
                self.seats[&host].disk.set_fuse(fuse);
                "death between two writes"
            }
            7 => {
                let seat = self.seats.get_mut(&host).expect("a host");
                seat.disk.fail_next_sync();
                seat.may_stop = true;
                "failed sync"
            }
            8 => {
                let seat = self.seats.get_mut(&host).expect("a host");
                seat.frozen = Some(self.now + some);
                "SIGSTOP"
            }
            9 => {
                self.cut_off(&[host]);
                "one cut off"
            }
            10 => {
                let mut group = hosts.clone();
                group.shuffle(&mut self.random);
                group.truncate(hosts.len() / 2);
                self.cut_off(&group);
                "two halves"
            }
            11 => {
                let other = hosts[self.random.random_range(0..hosts.len())];
                if other != host {
                    self.net.cut(host, other);
                }
                "one-way cut"
            }
            12 => {
                self.net.slow_down(host, some / 20);
                "slow links"
            }
            13 => {
                self.seats[&host].disk.set_sync_delay(some / 100, some / 10);
                "slow disk"
            }
            _ => {
                self.net.forget(host, true);
                "broken connections"
            }
        };
        *self.faults.entry(what).or_default() += 1;
    }

    fn cut_off(&mut self, group: &[HostId]) {
        for other in self.hosts().into_iter().filter(|host| !group.contains(host)) {
            for host in group {
                self.net.cut(*host, other);
                self.net.cut(other, *host);
            }
        }
        // Mostly the clients see both sides.
        if self.random.random_bool(0.2) {
            for host in group {
                self.net.cut(crate::clients::HOST, *host);
            }
        }
    }

    /// Mends links and disks.
    pub fn mend(&mut self) {
        self.net.mend();
        for seat in self.seats.values() {
            seat.disk.set_sync_delay(Duration::from_micros(200), Duration::from_millis(3));
        }
    }

    /// Gives clocks other rates.
    pub fn skew(&mut self) {
        for seat in self.seats.values_mut() {
            seat.rate = self.random.random_range(1.0 / FASTEST_CLOCK..FASTEST_CLOCK);
        }
    }

    /// Everything is well again, and stays so.
    pub fn heal(&mut self) {
        self.mend();
        for seat in self.seats.values_mut() {
            seat.rate = 1.0;
            seat.frozen = seat.frozen.map(|_| self.now);
            seat.may_stop &= !seat.disk.fails_next_sync();
            seat.disk.clear_faults();
            seat.starts = seat.starts.map(|_| self.now);
        }
    }
}
