//! Calls, e-mails and messages with customers.

use legwork_types::time::{HOUR_US, MINUTE_US, SECOND_US};
use legwork_types::{Kind, calls, emails, messages};

use crate::field::Phase;
use crate::organisation::{Happening, Organisation};

const CALL_IDS: usize = 0;
const EMAIL_IDS: usize = 1;
const MESSAGE_IDS: usize = 2;

/// How calls end, with how many of a hundred do so.
const CALL_ENDS: [(&str, u32); 6] =
    [("completed", 62), ("no_answer", 20), ("voicemail", 8), ("busy", 6), ("failed", 2), ("canceled", 2)];
const COMPLETED: u8 = 0;
const NO_ANSWER: u8 = 1;
const VOICEMAIL: u8 = 2;

#[derive(Clone, Copy, Debug)]
pub(crate) struct CallRecord {
    id: u32,
    rep: u32,
    account: u32,
    deal: Option<u32>,
    lead: Option<u32>,
    start_us: i64,
    talk_s: f32,
    end: u8,
    is_inbound: bool,
}

/// What happens to an e-mail next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EmailRecord {
    id: u32,
    rep: u32,
    account: u32,
    deal: Option<u32>,
    kind: &'static str,
    is_machine: bool,
}

impl Organisation {
    /// A rep gets in touch with somebody and plans the next time.
    pub(crate) fn make_contact(&mut self, rep: u32, evening: bool) {
        if !evening && self.reps[rep as usize].phase == Phase::Off {
            return;
        }
        let (account, deal) = self.choose_contact(rep);
        let chance = self.dice.unit();
        match chance {
            _ if evening => self.start_call(rep, account, deal, None),
            0.0..0.47 => self.start_call(rep, account, deal, None),
            0.47..0.72 => self.send_email(rep, account, deal),
            0.72..0.80 => self.receive_email(rep, account, deal),
            0.80..0.92 => self.send_message(rep, account, deal),
            _ => self.receive_message(rep, account, deal),
        }
        if evening && self.dice.chance(0.6) {
            return;
        }
        let mean_us = if evening { 15.0 } else { 22.0 } * MINUTE_US as f64;
        let next_us = self.now_us + MINUTE_US + self.dice.exponential(mean_us) as i64;
        self.plan(next_us, Happening::Contact { rep, evening });
    }

    /// Somebody at the customer of an open deal, or at any account of the rep.
    fn choose_contact(&mut self, rep: u32) -> (u32, Option<u32>) {
        let n_deals = self.reps[rep as usize].deals.len() as u32;
        if n_deals > 0 && self.dice.chance(0.6) {
            let deal = self.reps[rep as usize].deals[self.dice.below(n_deals) as usize];
            let deal = &self.deals[deal as usize];
            return (deal.account, Some(deal.id));
        }
        (self.world.account_of(rep, self.dice.below(self.world.accounts_per_rep)), None)
    }

    pub(crate) fn start_call(&mut self, rep: u32, account: u32, deal: Option<u32>, lead: Option<u32>) {
        let mut left = self.dice.below(100);
        let mut end = 0;
        while left >= CALL_ENDS[end].1 {
            left -= CALL_ENDS[end].1;
            end += 1;
        }
        let end = end as u8;
        let talk_s = if end == COMPLETED { 8.0 + self.dice.exponential(230.0).min(3_600.0) } else { 0.0 };
        let ring_us = self.dice.between_i64(4 * SECOND_US, 30 * SECOND_US);
        let (start_us, is_inbound) = (self.now_us, lead.is_none() && self.dice.chance(0.3));
        let id = self.next_id(CALL_IDS);
        let talk_s = talk_s.round() as f32;
        let call = CallRecord { id, rep, account, deal, lead, start_us, talk_s, end, is_inbound };
        self.plan(start_us + ring_us + i64::from(talk_s as i32) * SECOND_US, Happening::CallEnds(call));
    }

    /// The first report of a call. Some lack what the switchboard reports later.
    pub(crate) fn end_call(&mut self, call: CallRecord) {
        let is_provisional = self.dice.chance(0.15);
        if !is_provisional {
            return self.send_call(&call, 0);
        }
        let end = if call.end == VOICEMAIL { NO_ANSWER } else { call.end };
        self.send_call(&CallRecord { end, deal: None, talk_s: 0.0, ..call }, 0);
        let at_us = self.now_us + self.dice.between_i64(2 * MINUTE_US, 30 * MINUTE_US);
        self.plan(at_us, Happening::CallIsCorrected(call));
    }

    pub(crate) fn correct_call(&mut self, call: CallRecord) {
        self.send_call(&call, 1);
    }

    fn send_call(&mut self, call: &CallRecord, sequence: i64) {
        let n_copies = 1 + u32::from(self.dice.chance(0.005));
        let (run, now_us, number) = (self.out.run, self.now_us, self.out.number());
        for _ in 0..n_copies {
            let rows = self.out.begin(Kind::Calls, number, now_us, Some(sequence));
            rows.write(calls::CALL_ID, format_args!("call-{run:05x}-{}", call.id))
                .write(calls::REP_ID, format_args!("rep-{:05}", call.rep))
                .text(calls::DIRECTION, if call.is_inbound { "inbound" } else { "outbound" })
                .text(calls::STATUS, CALL_ENDS[usize::from(call.end)].0)
                .time(calls::START_TIME, call.start_us)
                .time(calls::END_TIME, if sequence == 0 { now_us } else { call.start_us + talk_us(call) })
                .write(calls::PEER, format_args!("+1555{:07}", call.account))
                .write(calls::ACCOUNT_ID, format_args!("account-{:06}", call.account));
            if call.talk_s > 0.0 {
                rows.f64(calls::DURATION_S, f64::from(call.talk_s));
            }
            if let Some(deal) = call.deal {
                rows.write(calls::DEAL_ID, format_args!("deal-{run:05x}-{deal}"));
            }
            if let Some(lead) = call.lead {
                rows.write(calls::LEAD_ID, format_args!("lead-{run:05x}-{lead}"));
            }
            rows.end(now_us);
        }
    }

    pub(crate) fn send_email(&mut self, rep: u32, account: u32, deal: Option<u32>) {
        let id = self.next_id(EMAIL_IDS);
        let email = EmailRecord { id, rep, account, deal, kind: "sent", is_machine: false };
        self.write_email(&email);
        let kind = if self.dice.chance(0.04) { "bounced" } else { "delivered" };
        let at_us = self.now_us + self.dice.between_i64(SECOND_US, 20 * SECOND_US);
        self.plan(at_us, Happening::Email(EmailRecord { kind, ..email }));
    }

    fn receive_email(&mut self, rep: u32, account: u32, deal: Option<u32>) {
        let id = self.next_id(EMAIL_IDS);
        self.write_email(&EmailRecord { id, rep, account, deal, kind: "received", is_machine: false });
    }

    /// Something happens to an e-mail, and may lead to more.
    pub(crate) fn follow_email(&mut self, email: EmailRecord) {
        self.write_email(&email);
        let now_us = self.now_us;
        match (email.kind, email.is_machine) {
            ("delivered", _) => {
                if self.dice.chance(0.3) {
                    let at_us = now_us + self.dice.between_i64(3 * SECOND_US, 90 * SECOND_US);
                    self.plan(at_us, Happening::Email(EmailRecord { kind: "opened", is_machine: true, ..email }));
                }
                if self.dice.chance(0.02) {
                    let at_us = now_us + self.dice.between_i64(SECOND_US, 30 * SECOND_US);
                    self.plan(at_us, Happening::Email(EmailRecord { kind: "replied", is_machine: true, ..email }));
                }
                if self.dice.chance(0.5) {
                    let at_us = now_us + MINUTE_US + self.dice.exponential(90.0 * MINUTE_US as f64) as i64;
                    self.plan(at_us, Happening::Email(EmailRecord { kind: "opened", ..email }));
                }
            }
            ("opened", false) => {
                if self.dice.chance(0.2) {
                    let at_us = now_us + self.dice.between_i64(5 * SECOND_US, 4 * MINUTE_US);
                    self.plan(at_us, Happening::Email(EmailRecord { kind: "clicked", ..email }));
                }
                if self.dice.chance(0.3) {
                    let at_us = now_us + MINUTE_US + self.dice.exponential(HOUR_US as f64) as i64;
                    self.plan(at_us, Happening::Email(EmailRecord { kind: "replied", ..email }));
                }
            }
            _ => {}
        }
    }

    fn write_email(&mut self, email: &EmailRecord) {
        let n_copies = 1 + u32::from(self.dice.chance(0.007));
        let event_us = self.now_us - self.dice.between_i64(100_000, 2 * SECOND_US);
        let (run, number) = (self.out.run, self.out.number());
        for _ in 0..n_copies {
            let rows = self.out.begin(Kind::Emails, number, event_us, None);
            rows.write(emails::MESSAGE_ID, format_args!("mail-{run:05x}-{}", email.id))
                .write(emails::REP_ID, format_args!("rep-{:05}", email.rep))
                .text(emails::KIND, email.kind)
                .bool(emails::MACHINE, email.is_machine)
                .write(emails::PEER, format_args!("buyer@account-{:06}.example", email.account))
                .write(emails::THREAD_ID, format_args!("thread-{:06}", email.account))
                .write(emails::ACCOUNT_ID, format_args!("account-{:06}", email.account));
            if let Some(deal) = email.deal {
                rows.write(emails::DEAL_ID, format_args!("deal-{run:05x}-{deal}"));
            }
            rows.end(self.now_us);
        }
    }

    fn send_message(&mut self, rep: u32, account: u32, deal: Option<u32>) {
        self.write_message(rep, account, deal, "outbound");
        if self.dice.chance(0.55) {
            let at_us = self.now_us + 10 * SECOND_US + self.dice.exponential(20.0 * MINUTE_US as f64) as i64;
            self.plan(at_us, Happening::Answer { rep, account, deal });
        }
    }

    pub(crate) fn receive_message(&mut self, rep: u32, account: u32, deal: Option<u32>) {
        self.write_message(rep, account, deal, "inbound");
    }

    fn write_message(&mut self, rep: u32, account: u32, deal: Option<u32>, direction: &str) {
        let id = self.next_id(MESSAGE_IDS);
        let n_copies = 1 + u32::from(self.dice.chance(0.007));
        let event_us = self.now_us - self.dice.between_i64(100_000, SECOND_US);
        let (run, number) = (self.out.run, self.out.number());
        // Each customer keeps to one medium.
        let channel = ["sms", "whatsapp", "chat", "whatsapp", "other"][account as usize % 5];
        for _ in 0..n_copies {
            let rows = self.out.begin(Kind::Messages, number, event_us, None);
            rows.write(messages::MESSAGE_ID, format_args!("message-{run:05x}-{id}"))
                .write(messages::REP_ID, format_args!("rep-{rep:05}"))
                .text(messages::CHANNEL, channel)
                .text(messages::DIRECTION, direction)
                .write(messages::PEER, format_args!("+1555{account:07}"))
                .write(messages::ACCOUNT_ID, format_args!("account-{account:06}"));
            if let Some(deal) = deal {
                rows.write(messages::DEAL_ID, format_args!("deal-{run:05x}-{deal}"));
            }
            rows.end(self.now_us);
        }
    }
}

/// Time from ringing to the end as the switchboard counts it, microseconds.
fn talk_us(call: &CallRecord) -> i64 {
    10 * SECOND_US + i64::from(call.talk_s as i32) * SECOND_US
}
