//! A batch load against a simulated server, as the program sends it: as the admission allows, with rows that go back to
//! the front of the queue.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use batchwright::domain::rate_limits::RateLimits;
use batchwright::simulator::batching::{
    BatchingReply, BatchingServer, BatchingSettings, CallStatus, Seconds, SimulatedRow,
};
use batchwright::upstream::admission::{
    AdmissionState, CallEnd, ConcurrencyController, Gate, LONGEST_PAUSE, LimitReason, Sent,
};

/// As the program does it.
const LOOK_AGAIN: f64 = 5.0;
/// The clock of the controller does not start at zero.
const CLOCK_START: f64 = 1000.0;

/// The rows of a load: prompts and outputs have lognormal lengths, given as median, sigma and highest length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) prompt: (f64, f64, f64),
    pub(crate) output: (f64, f64, f64),
    /// Rows that are ready at once. A number below the limit leaves the limit unused.
    pub(crate) rows_at_once: usize,
    /// Of ten answers, so many state their output tokens.
    pub(crate) answers_with_usage: usize,
    /// Calls of others that come in a second, short ones, which no admission holds back.
    pub(crate) others_a_second: f64,
    /// Whether the server's own metrics are read each second.
    pub(crate) reads_metrics: bool,
}

/// A change of the server at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Slots(usize),
    Down,
    Up,
}

/// What became of a load.
#[derive(Debug)]
pub(crate) struct Report {
    /// Output tokens that the server made.
    pub(crate) delivered: f64,
    pub(crate) calls: f64,
    pub(crate) wasted: f64,
    /// The limit at the end, its highest, and when it was first the ceiling.
    pub(crate) limit: usize,
    pub(crate) highest_limit: usize,
    pub(crate) reached_ceiling: Option<f64>,
    /// Why the limit is what it is at the end.
    pub(crate) reason: LimitReason,
    /// Seconds that 95 % of the calls of others took at most.
    pub(crate) others_p95: f64,
}

/// An endless source of rows, the same for each limiter.
#[derive(Debug)]
pub(crate) struct Rows {
    load: Load,
    random: u64,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// What a server said, and which one.
    Answer(usize, BatchingReply),
    Wake(usize, u64),
    Change(Change),
    /// A call of others comes.
    Other,
    /// The metrics of the servers are read.
    Metrics,
    Timer,
}

#[derive(Debug, Clone, Copy)]
struct Call {
    row: SimulatedRow,
    /// None if it is a call of others.
    sent: Option<Sent>,
    sent_at: f64,
    taken_before: usize,
}

/// A server, and what is known of it.
struct Site {
    server: BatchingServer,
    scheduled: u64,
    admission: AdmissionState,
    in_flight: usize,
    taken: usize,
    /// When the admission is to be looked at again.
    timer: Option<Duration>,
}

struct Run {
    now: f64,
    events: BinaryHeap<Reverse<(Seconds, u64)>>,
    payloads: Vec<Event>,
    sites: Vec<Site>,
    load: Load,
    rows: Rows,
    front: VecDeque<SimulatedRow>,
    calls: Vec<Call>,
    others: Rows,
    others_took: Vec<f64>,
    wasted: f64,
    highest_limit: usize,
    reached_ceiling: Option<f64>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            prompt: (400.0, 0.9, 6000.0),
            output: (180.0, 0.9, 2000.0),
            rows_at_once: usize::MAX,
            answers_with_usage: 10,
            others_a_second: 0.0,
            reads_metrics: false,
        }
    }
}

impl Load {
    /// The same rows; of ten answers, so many do not state their output tokens.
    pub(crate) fn without_usage(self, answers: usize) -> Self {
        Self { answers_with_usage: 10 - answers, ..self }
    }

    /// The same rows; the server's own metrics are read.
    pub(crate) fn with_metrics(self) -> Self {
        Self { reads_metrics: true, ..self }
    }
}

impl Rows {
    pub(crate) fn new(load: Load, seed: u64) -> Self {
        Self { load, random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) }
    }

    pub(crate) fn next(&mut self) -> SimulatedRow {
        let prompt = self.length(self.load.prompt);
        SimulatedRow { prompt, cached: 0.0, output: self.length(self.load.output), most_output: 512.0 }
    }

    fn length(&mut self, (median, sigma, most): (f64, f64, f64)) -> f64 {
        let (first, second) = (self.uniform(), self.uniform());
        let normal = (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos();
        (median.ln() + sigma * normal).exp().floor().clamp(1.0, most)
    }

    /// A number in (0, 1), by splitmix64.
    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (f64::from(u32::try_from(mixed >> 32).unwrap_or_default()) + 0.5) / (f64::from(u32::MAX) + 1.0)
    }
}

/// Sends a load to servers for so many seconds, each with a controller of its own.
pub(crate) fn run(
    servers: Vec<(BatchingSettings, ConcurrencyController)>,
    load: Load,
    changes: &[(f64, Change)],
    seconds: f64,
    seed: u64,
) -> Report {
    let site = |(settings, controller)| Site {
        server: BatchingServer::new(settings),
        scheduled: 0,
        admission: AdmissionState::new(controller),
        in_flight: 0,
        taken: 0,
        timer: None,
    };
    let mut run = Run {
        now: 0.0,
        events: BinaryHeap::new(),
        payloads: Vec::new(),
        sites: servers.into_iter().map(site).collect(),
        load,
        rows: Rows::new(load, seed),
        front: VecDeque::new(),
        calls: Vec::new(),
        others: Rows::new(Load { prompt: (200.0, 0.5, 2000.0), output: (60.0, 0.5, 400.0), ..load }, seed ^ 0xABCD),
        others_took: Vec::new(),
        wasted: 0.0,
        highest_limit: 0,
        reached_ceiling: None,
    };
    for (at, change) in changes {
        run.at(*at, Event::Change(*change));
    }
    // Whoever follows a server looks at it every few seconds, also without an answer.
    let mut look = 0.0;
    while look < seconds {
        run.at(look, Event::Timer);
        look += LOOK_AGAIN;
    }
    run.at(seconds, Event::Timer);
    let mut read = 1.0;
    while load.reads_metrics && read < seconds {
        run.at(read, Event::Metrics);
        read += 1.0;
    }
    let mut other = 0.0;
    while load.others_a_second > 0.0 && other < seconds {
        other -= run.others.uniform().ln() / load.others_a_second;
        run.at(other, Event::Other);
    }
    run.pump();
    run.collect();
    while let Some(Reverse((at, event))) = run.events.pop().filter(|Reverse((at, _))| at.0 <= seconds) {
        run.now = at.0;
        run.happen(event);
        run.pump();
        run.collect();
    }
    run.report(seconds)
}

impl Run {
    fn at(&mut self, at: f64, event: Event) {
        let id = self.payloads.len() as u64;
        self.payloads.push(event);
        self.events.push(Reverse((Seconds(at), id)));
    }

    fn happen(&mut self, event: u64) {
        let event = usize::try_from(event).ok().and_then(|event| self.payloads.get(event)).copied();
        match event {
            Some(Event::Answer(site, reply)) => self.end(site, reply),
            Some(Event::Wake(site, version)) => self.sites[site].server.wake(self.now, version),
            Some(Event::Change(change)) => {
                for Site { server, .. } in &mut self.sites {
                    match change {
                        Change::Slots(slots) => server.resize(self.now, slots),
                        Change::Down => server.go_down(self.now),
                        Change::Up => server.come_up(self.now),
                    }
                }
            }
            Some(Event::Other) => {
                let row = self.others.next();
                self.calls.push(Call { row, sent: None, sent_at: self.now, taken_before: 0 });
                self.sites[0].server.send(self.now, self.calls.len() - 1, row);
            }
            Some(Event::Metrics) => {
                for Site { server, admission, .. } in &mut self.sites {
                    admission.note_waiting(clock(self.now), server.waiting());
                }
            }
            Some(Event::Timer) | None => {}
        }
    }

    /// Takes over what the server has said and when it has to be woken.
    fn collect(&mut self) {
        for site in 0..self.sites.len() {
            for reply in std::mem::take(&mut self.sites[site].server.replies) {
                self.at(reply.at, Event::Answer(site, reply));
            }
            let (wake, version) = self.sites[site].server.next_wake();
            if version != self.sites[site].scheduled
                && let Some(at) = wake
            {
                self.sites[site].scheduled = version;
                self.at(at.max(self.now), Event::Wake(site, version));
            }
        }
    }

    /// Sends what may be sent, to the server with the least relative load.
    fn pump(&mut self) {
        let now = clock(self.now);
        for site in 0..self.sites.len() {
            self.sites[site].admission.tick(now);
            if self.sites[site].admission.gate(now) == Gate::Shut {
                self.look_again_at(site, self.sites[site].admission.shut_until(now));
            }
        }
        let limit: usize = self.sites.iter().map(|site| site.admission.limit()).sum();
        self.highest_limit = self.highest_limit.max(limit);
        if limit >= crate::scenarios::CEILING {
            self.reached_ceiling.get_or_insert(self.now);
        }
        while self.in_flight() < self.load.rows_at_once.min(crate::scenarios::CEILING) {
            let open = (0..self.sites.len()).filter(|site| self.sites[*site].lets_begin(now));
            let Some(site) = open.min_by(|a, b| self.sites[*a].load().total_cmp(&self.sites[*b].load())) else {
                return;
            };
            self.send(site, now);
            if self.sites[site].admission.gate(now) == Gate::Shut {
                self.look_again_at(site, self.sites[site].admission.shut_until(now));
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.sites.iter().map(|site| site.in_flight).sum()
    }

    fn look_again_at(&mut self, site: usize, due: Option<Duration>) {
        let Some(due) = due.filter(|due| self.sites[site].timer != Some(*due)) else { return };
        self.sites[site].timer = Some(due);
        // Rounding must not bring it back before its time.
        self.at(due.as_secs_f64() - CLOCK_START + 1e-6, Event::Timer);
    }

    fn send(&mut self, site: usize, now: Duration) {
        let row = self.front.pop_front().unwrap_or_else(|| self.rows.next());
        let at = &mut self.sites[site];
        at.in_flight += 1;
        let sent = Some(at.admission.sent(now));
        self.calls.push(Call { row, sent, sent_at: self.now, taken_before: at.taken });
        at.server.send(self.now, self.calls.len() - 1, row);
    }

    fn end(&mut self, site: usize, reply: BatchingReply) {
        let Some(call) = self.calls.get(reply.call).copied() else { return };
        let Some(sent) = call.sent else { return self.others_took.push(self.now - call.sent_at) };
        let at = &mut self.sites[site];
        at.in_flight -= 1;
        if reply.tokens.is_some() {
            at.admission.read(clock(self.now), sent, &RateLimits { requests: None, tokens: reply.tokens });
        }
        let has_taken_others = at.taken != call.taken_before;
        let (reason, retry_after) = (String::new(), reply.retry_after.map(Duration::from_secs_f64));
        let end = match reply.status {
            CallStatus::Answered => {
                at.taken += 1;
                let has_usage = reply.call % 10 < self.load.answers_with_usage;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "lengths are small and positive"
                )]
                let output_tokens = has_usage.then_some(call.row.output as u64);
                CallEnd::Answered { is_success: true, output_tokens, total_tokens: None }
            }
            CallStatus::Refused | CallStatus::Unavailable => CallEnd::Refused { retry_after, reason, has_taken_others },
            CallStatus::NoConnection => CallEnd::Unavailable { retry_after, reason, longest_pause: LONGEST_PAUSE },
        };
        if reply.status != CallStatus::Answered {
            self.wasted += 1.0;
            self.front.push_back(call.row);
        }
        at.admission.end(clock(self.now), sent, end);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of calls are small")]
    fn report(mut self, seconds: f64) -> Report {
        self.sites.iter_mut().for_each(|site| site.server.settle(seconds));
        self.others_took.sort_by(f64::total_cmp);
        Report {
            delivered: self.sites.iter().map(|site| site.server.delivered).sum(),
            calls: self.calls.iter().filter(|call| call.sent.is_some()).count() as f64,
            wasted: self.wasted,
            limit: self.sites.iter().map(|site| site.admission.limit()).sum(),
            highest_limit: self.highest_limit,
            reached_ceiling: self.reached_ceiling,
            reason: self.sites[0].admission.limit_reason(),
            others_p95: self.others_took.get(self.others_took.len() * 95 / 100).copied().unwrap_or_default(),
        }
    }
}

impl Site {
    fn lets_begin(&self, now: Duration) -> bool {
        self.in_flight < self.admission.limit() && self.admission.gate(now) != Gate::Shut
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of calls are small")]
    fn load(&self) -> f64 {
        (self.in_flight + 1) as f64 / self.admission.limit().max(1) as f64
    }
}

fn clock(seconds: f64) -> Duration {
    Duration::from_secs_f64(CLOCK_START + seconds)
}
