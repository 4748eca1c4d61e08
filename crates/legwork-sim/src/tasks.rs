//! Tasks: due, done, put off, forgotten.

use legwork_types::time::{HOUR_US, MINUTE_US};
use legwork_types::{Kind, tasks};

use crate::organisation::{Happening, Organisation};

const TASK_IDS: usize = 4;
const SORTS: [&str; 4] = ["follow_up", "quote", "samples", "paperwork"];

#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskRecord {
    id: u32,
    rep: u32,
    deal: Option<u32>,
    due_us: i64,
    sequence: i64,
    is_put_off: bool,
}

impl Organisation {
    pub(crate) fn create_task(&mut self, rep: u32, deal: Option<u32>) {
        let hub = self.world.hub_of(rep);
        let wish_us = self.now_us + self.dice.between_i64(HOUR_US, 60 * HOUR_US);
        let due_us = self.world.in_business_hours(hub, wish_us);
        let id = self.next_id(TASK_IDS);
        let is_put_off = self.dice.chance(0.15);
        let task = TaskRecord { id, rep, deal, due_us, sequence: 0, is_put_off };
        self.send_task(&task, None);
        // One in seven is forgotten.
        if !self.dice.chance(0.14) {
            self.plan_task(TaskRecord { sequence: 1, ..task });
        }
    }

    fn plan_task(&mut self, task: TaskRecord) {
        let latest_us = task.due_us + if self.dice.chance(0.2) { 4 * HOUR_US } else { 0 };
        let at_us = self.dice.between_i64(self.now_us + 10 * MINUTE_US, latest_us.max(self.now_us + 20 * MINUTE_US));
        self.plan(at_us, Happening::Task(task));
    }

    pub(crate) fn work_on_task(&mut self, task: TaskRecord) {
        if !task.is_put_off {
            return self.send_task(&task, Some(self.now_us));
        }
        let hub = self.world.hub_of(task.rep);
        let wish_us = task.due_us.max(self.now_us) + self.dice.between_i64(4 * HOUR_US, 30 * HOUR_US);
        let due_us = self.world.in_business_hours(hub, wish_us);
        let put_off = TaskRecord { due_us, is_put_off: false, ..task };
        self.send_task(&put_off, None);
        self.plan_task(TaskRecord { sequence: task.sequence + 1, ..put_off });
    }

    fn send_task(&mut self, task: &TaskRecord, completed_us: Option<i64>) {
        let (run, number) = (self.out.run, self.out.number());
        let rows = self.out.begin(Kind::Tasks, number, self.now_us, Some(task.sequence));
        rows.write(tasks::TASK_ID, format_args!("task-{run:05x}-{}", task.id))
            .write(tasks::REP_ID, format_args!("rep-{:05}", task.rep))
            .text(tasks::KIND, SORTS[task.id as usize % SORTS.len()])
            .time(tasks::DUE_TIME, task.due_us);
        if let Some(completed_us) = completed_us {
            rows.time(tasks::COMPLETED_TIME, completed_us);
        }
        if let Some(deal) = task.deal {
            rows.write(tasks::DEAL_ID, format_args!("deal-{run:05x}-{deal}"));
        }
        rows.end(self.now_us);
    }
}
