//! Handles the lines of clients: parses, checks and runs requests, and answers them.

use super::replies::{
    WRONG_PASSWORD, beyond_end, error, exists, mailbox_full, no_such_user, outcome_of,
};
use super::session::{Checked, Listing, Login, PendingReply, RequestState};
use super::unanswered::Pending;
use super::{Env, Hashed, Job, Node};
use crate::content::{AttributeList, Content};
use crate::ids::{Index, SessionId, UserName};
use crate::mailbox::{Account, Change, List, Once};
use crate::protocol::{self, After, Answer, Code, Command, Refusal, Reply, Right, Task};
use crate::replica::RoleView;
use crate::time::Moment;

/// The hash that a password is checked against if there is no such account, so that both cases
/// take equally long. It is the hash of a password that nobody knows, with the cost parameters of
/// all hashes.
pub(crate) const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$cG9zdGVybi1ub2JvZHk$\
                      AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

impl Node {
    /// Runs, queues or refuses the request of a line.
    pub(super) fn take_line(
        &mut self,
        env: &mut Env<'_>,
        id: SessionId,
        request: Result<Option<(Right, Command<'_>)>, Refusal>,
    ) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.closing) else {
            return;
        };
        let Some(request) = request.transpose() else { return self.mark_dirty(id) };
        let attributes = session.attributes.take();
        if session.login.is_none() {
            self.extend_login(env.now, id);
        }
        let (right, command) = match request {
            Ok(request) => request,
            Err(refusal) => return self.answer(id, error(refusal.code, refusal.to_string())),
        };
        if self.refuses(env.now, id, right) {
            return;
        }
        match command {
            Command::Help(which) => {
                let lines: Vec<String> = protocol::help(which).collect();
                let lines = lines.iter().map(|line| Reply::Help(line));
                self.answer_all(id, lines.chain([Reply::Ok(Answer::Done)]));
            }
            Command::Ping(text) => self.answer(id, Reply::Ok(Answer::Echo(text))),
            Command::Status => {
                let status = self.status(env.world);
                let lines = status.iter().map(|(key, value)| Reply::Stat(key, value));
                self.answer_all(id, lines.chain([Reply::Ok(Answer::Done)]));
            }
            Command::Send { to, key, text } => {
                let attributes = attributes.as_deref().map(AttributeList::get).unwrap_or_default();
                self.on_send(env, id, to, key, Content { text: &text, attributes });
            }
            Command::With(attribute, value) => {
                let mut attributes = attributes.unwrap_or_default();
                attributes.set(attribute, value);
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.attributes = Some(attributes);
                }
                self.answer(id, Reply::Ok(Answer::Done));
            }
            Command::ShowAttributes(on) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.shows_attributes = on;
                }
                self.answer(id, Reply::Ok(Answer::Done));
            }
            Command::Task(Task::Create { .. })
                if !self.setup.accounts_open && !self.operators.contains(&id) =>
            {
                self.answer(id, error(Code::NotAllowed, "here the operator makes accounts"));
            }
            Command::Task(task) => self.queue(env.now, id, task),
        }
    }

    /// Restarts the login timeout after a request of a client that is not logged in.
    pub(super) fn extend_login(&mut self, now: Moment, id: SessionId) {
        if self.sessions.get(&id).is_some_and(|session| session.login.is_none()) {
            self.set_deadline(id, Some(now + self.setup.login_timeout));
        }
    }

    /// Refuses a request that is not allowed here and now. Returns whether it did.
    fn refuses(&mut self, now: Moment, id: SessionId, right: Right) -> bool {
        if right == Right::Always {
            return false;
        }
        if !self.replica.gate_open() {
            self.answer(id, self.troubled(now, Code::NotReady));
            return true;
        }
        if self.replica.role() != RoleView::Primary {
            self.answer(id, self.not_primary(now));
            return true;
        }
        let logged_in = self.sessions.get(&id).is_some_and(|session| session.login.is_some());
        let (code, words) = match right {
            Right::LoggedIn if !logged_in => (Code::NotLoggedIn, "LOGIN first"),
            Right::LoggedOut if logged_in => (Code::AlreadyLoggedIn, "LOGOUT first"),
            _ => return false,
        };
        self.answer(id, error(code, words));
        true
    }

    fn on_send(
        &mut self,
        env: &mut Env<'_>,
        id: SessionId,
        to: UserName,
        key: Option<&str>,
        content: Content<'_>,
    ) {
        let Some(Login { user: from, created: sender, .. }) = self.login(id) else { return };
        let change = Change::Message { to, from, sender, key, content };
        if !protocol::fits(content) {
            let words = "a title and a text have at most 3840 bytes together";
            return self.answer(id, error(Code::TooLong, words));
        }
        // A message with a known key is answered before any other check refuses it.
        let known = key.and_then(|key| self.mailboxes.known(&Once { sender, key, to, content }));
        if let Some(outcome) = known {
            return self.answer(id, outcome_of(&change, outcome));
        }
        let receiver = self.mailboxes.account(to);
        if receiver.is_none_or(|receiver| self.mailboxes.is_full(receiver, content)) {
            // Only a confirmed read proves that there is no such user, or no room. Later requests
            // wait, to keep their order.
            let Content { text, attributes } = content;
            let (key, text) = (key.map(str::to_owned), text.to_owned());
            let attributes = AttributeList::of(attributes);
            return self.queue(env.now, id, Task::Send { to, key, text, attributes });
        }
        self.log_message(env, id, &change);
    }

    fn log_message(&mut self, env: &mut Env<'_>, id: SessionId, change: &Change<'_>) {
        match self.propose(env, id, change) {
            Some(index) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.pending_replies.push_back(PendingReply::Logged(index));
                }
            }
            // This may have been the last answer that the session waited for.
            None => self.settle(env.now, id),
        }
    }

    fn login(&self, id: SessionId) -> Option<Login> {
        self.sessions.get(&id).and_then(|session| session.login())
    }

    /// Appends a change to the log, or answers why that is not possible.
    fn propose(&mut self, env: &mut Env<'_>, id: SessionId, change: &Change<'_>) -> Option<Index> {
        if self.unanswered.is_full() {
            self.answer(id, error(Code::Busy, "too many changes wait for their answers"));
            return None;
        }
        let before = env.out.replica.bytes.len();
        let encode = |body: &mut Vec<u8>| change.encode(body);
        let (now, wall) = (env.now, env.world.wall);
        let logged = self.replica.propose(now, wall, change.kind(), encode, &mut env.out.replica);
        let index = match logged {
            Ok(index) => index,
            Err(why) => {
                self.answer(id, self.not_taken(env.now, why));
                return None;
            }
        };
        let bytes = env.out.replica.bytes.len() - before;
        self.unanswered.push(Pending { index, session: id, bytes, taken: env.now });
        Some(index)
    }

    /// Runs a task once all earlier requests are answered.
    fn queue(&mut self, now: Moment, id: SessionId, task: Task) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.pending_replies.is_empty() {
            self.begin(now, id, task);
        } else {
            session.request = RequestState::Queued(Box::new(task));
        }
    }

    pub(super) fn begin(&mut self, now: Moment, id: SessionId, task: Task) {
        match task {
            Task::Quit => {
                self.log_out(id);
                self.set_deadline(id, None);
                self.answer(id, Reply::Ok(Answer::Bye));
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.request = RequestState::Idle;
                    session.closing = true;
                }
            }
            Task::Logout => {
                self.log_out(id);
                self.finish(now, id, Reply::Ok(Answer::Done));
            }
            task => {
                let Some(round) = self.replica.read_index() else {
                    return self.finish(now, id, self.not_primary(now));
                };
                self.reads.push_back((round, id));
                self.set_deadline(id, Some(now + self.replica.peer_timeout()));
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.request = RequestState::Reading(Box::new(task));
                }
            }
        }
    }

    /// Continues the tasks whose reads are confirmed.
    pub(super) fn resume_reads(&mut self, env: &mut Env<'_>) {
        let confirmed = self.replica.confirmed_read();
        // A read must show everything that was acknowledged before it began.
        if self.applied < self.replica.acknowledged() {
            return;
        }
        while let Some((round, id)) = self.reads.front().copied()
            && confirmed >= Some(round)
        {
            self.reads.pop_front();
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            match std::mem::take(&mut session.request) {
                RequestState::Reading(task) => {
                    self.set_deadline(id, None);
                    self.resume(env, id, *task);
                }
                request => session.request = request,
            }
        }
    }

    fn resume(&mut self, env: &mut Env<'_>, id: SessionId, task: Task) {
        let now = env.now;
        let login = self.login(id);
        match task {
            Task::Create { user, password } => {
                if self.mailboxes.account(user).is_some() {
                    return self.finish(now, id, exists(user));
                }
                self.hash_new(env, id, user, password, None);
            }
            Task::Delete { user, .. } if login.is_none_or(|login| login.user != user) => {
                self.finish(now, id, error(Code::BadArgument, "name your own account"));
            }
            Task::Login { user, .. } | Task::Delete { user, .. } => self.check(env, id, user, task),
            Task::Passwd { .. } => {
                let Some(login) = login else { return };
                self.check(env, id, login.user, task);
            }
            Task::Send { to, key, text, attributes } => {
                let Some(receiver) = self.mailboxes.account(to) else {
                    return self.finish(now, id, no_such_user(to));
                };
                let Some(Login { user: from, created: sender, .. }) = login else { return };
                let content = Content { text: &text, attributes: attributes.get() };
                // An entry that is not applied yet may store the message under its key.
                let is_certain = key.is_none() || self.applied == self.replica.last();
                if is_certain && self.mailboxes.is_full(receiver, content) {
                    return self.finish(now, id, mailbox_full(to));
                }
                let change = Change::Message { to, from, sender, key: key.as_deref(), content };
                self.log_message(env, id, &change);
                self.mark_dirty(id);
            }
            Task::Log { after, limit } => self.show_part(now, id, List::Received, after, limit),
            Task::Sent { after, limit } => self.show_part(now, id, List::Sent, after, limit),
            Task::List { pattern } => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    let listing = Listing { after: None, pattern, count: 0 };
                    session.request = RequestState::Listing(Box::new(listing));
                }
                self.start_moving(id);
            }
            Task::Users { after } => self.list_users(now, id, after),
            Task::Reset { user, password } => {
                let Some(set) = self.password_set(now, id, user) else { return };
                self.hash_new(env, id, user, password, Some(set));
            }
            Task::Remove { user } => {
                let Some(checked) = self.password_set(now, id, user) else { return };
                self.log_alone(env, id, &Change::Delete { user, checked });
            }
            Task::Logout | Task::Quit => unreachable!("these read nothing"),
        }
    }

    /// Returns the entry that set a user's password. If there is no such user, answers that and
    /// returns `None`.
    fn password_set(&mut self, now: Moment, id: SessionId, user: UserName) -> Option<Index> {
        let set = self.mailboxes.account(user).map(|account| account.password_set);
        if set.is_none() {
            self.finish(now, id, no_such_user(user));
        }
        set
    }

    /// Shows a part of a list to a client that is logged in.
    fn show_part(
        &mut self,
        now: Moment,
        id: SessionId,
        list: List,
        after: After,
        limit: Option<u64>,
    ) {
        let account = self.login(id).and_then(|login| self.mailboxes.account(login.user));
        let last = account.map_or(0, |account| account.count(list));
        let Some(after) = after.resolve(last) else {
            return self.finish(now, id, beyond_end(last));
        };
        let last = limit.map_or(last, |limit| last.min(after.saturating_add(limit)));
        self.show(id, list, after, last, None);
    }

    fn show(&mut self, id: SessionId, list: List, after: u64, last: u64, login: Option<Login>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.request =
                RequestState::Showing { list, next: after + 1, last, login: login.map(Box::new) };
        }
        self.start_moving(id);
    }

    /// Checks the password of a task against the cached password of the account. If none is
    /// cached, queues a job that checks it against the account's hash, or against `NOBODY` if
    /// there is no account.
    fn check(&mut self, env: &mut Env<'_>, id: SessionId, user: UserName, task: Task) {
        if self.refuses_attempt(env.now, id, user) {
            return;
        }
        let account = self.mailboxes.account(user);
        let set = account.map_or(Index::ZERO, |account| account.password_set);
        let last = account.map_or(0, Account::last);
        let checked = Checked { user, task, set, last };
        if let Some(right) = self.cached(&checked) {
            return self.on_checked(env, id, checked, right);
        }
        let against = account.map_or_else(|| NOBODY.to_owned(), Account::hash);
        let password = checked.task.password().to_owned();
        let job = Job { session: id, password, against: Some(against) };
        self.hash(env, job, RequestState::Checking(Box::new(checked)));
    }

    /// Returns whether the password of a task is right, if the account's password is cached.
    fn cached(&self, checked: &Checked) -> Option<bool> {
        self.logins.passwords.verify(checked.user, checked.set, checked.task.password())
    }

    /// Refuses an attempt after too many wrong passwords. Returns whether it did.
    fn refuses_attempt(&mut self, now: Moment, id: SessionId, user: UserName) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        let Some(wait) = self.logins.throttle.wait(session.from, user, now) else { return false };
        let seconds = wait.as_secs() + 1;
        let words = format!("too many wrong passwords; try again in {seconds} s");
        self.finish(now, id, error(Code::TooManyAttempts, words));
        true
    }

    /// Continues a task whose password was compared.
    fn on_checked(&mut self, env: &mut Env<'_>, id: SessionId, checked: Checked, right: bool) {
        let (user, set) = (checked.user, checked.set);
        // Guesses that were hashed concurrently count together.
        if self.refuses_attempt(env.now, id, user) {
            return;
        }
        if !right {
            if let Some(session) = self.sessions.get(&id) {
                self.logins.throttle.note(session.from, user, env.now);
            }
            return self.finish(env.now, id, WRONG_PASSWORD);
        }
        // The password may have changed while the job ran.
        if self.mailboxes.account(user).is_none_or(|account| account.password_set != set) {
            return self.finish(env.now, id, WRONG_PASSWORD);
        }
        self.logins.passwords.add(user, set, checked.task.password());
        self.on_right_password(env, id, checked);
    }

    /// Queues the hash of a new password. It replaces the one that entry `replaced` has set, if
    /// the account exists.
    fn hash_new(
        &mut self,
        env: &mut Env<'_>,
        id: SessionId,
        user: UserName,
        password: String,
        replaced: Option<Index>,
    ) {
        let job = Job { session: id, password, against: None };
        self.hash(env, job, RequestState::Hashing(Box::new((user, replaced))));
    }

    fn hash(&mut self, env: &mut Env<'_>, job: Job, request: RequestState) {
        let Some(session) = self.sessions.get_mut(&job.session) else { return };
        session.request = request;
        if let Some(refused) = self.logins.hash_queue.push(session.from, job) {
            self.finish(env.now, refused, error(Code::Busy, "too many logins wait; try again"));
        }
        env.out.jobs.extend(self.logins.hash_queue.next());
    }

    pub(super) fn on_hashed(&mut self, env: &mut Env<'_>, id: SessionId, hashed: Hashed) {
        self.logins.hash_queue.on_done();
        self.take_hashed(env, id, hashed);
        self.next_hashes(env);
    }

    /// Gives the hashing thread as many jobs as it can use. After a restart many sessions of one
    /// account log in at the same time: the result for one of them spares the others the hash.
    fn next_hashes(&mut self, env: &mut Env<'_>) {
        while let Some(job) = self.logins.hash_queue.next() {
            let session = self.sessions.get(&job.session);
            let known = session.and_then(|session| match &session.request {
                RequestState::Checking(checked) => self.cached(checked),
                _ => None,
            });
            match known {
                None => env.out.jobs.push(job),
                Some(right) => {
                    self.logins.hash_queue.on_done();
                    self.take_hashed(env, job.session, Hashed::Checked(right));
                }
            }
        }
    }

    fn take_hashed(&mut self, env: &mut Env<'_>, id: SessionId, hashed: Hashed) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match (std::mem::take(&mut session.request), hashed) {
            (RequestState::Checking(checked), Hashed::Checked(right)) => {
                self.on_checked(env, id, *checked, right);
            }
            (RequestState::Hashing(account), Hashed::Made(hash)) => {
                let hash = hash.as_str();
                let change = match *account {
                    (user, None) => Change::Create { user, hash },
                    (user, Some(checked)) => Change::Password { user, checked, hash },
                };
                self.log_alone(env, id, &change);
            }
            (request, _) => session.request = request,
        }
    }

    fn on_right_password(&mut self, env: &mut Env<'_>, id: SessionId, checked: Checked) {
        let Checked { user, task, set, last } = checked;
        match task {
            Task::Login { after, .. } => {
                let created = self.mailboxes.account(user).map(Account::created);
                let Some(created) = created else { return };
                match after.resolve(last) {
                    None => self.finish(env.now, id, beyond_end(last)),
                    Some(after) => {
                        let login = Login { user, created, set, next: last + 1 };
                        self.show(id, List::Received, after, last, Some(login));
                    }
                }
            }
            Task::Passwd { new, .. } => self.hash_new(env, id, user, new, Some(set)),
            _ => self.log_alone(env, id, &Change::Delete { user, checked: set }),
        }
    }

    /// Logs the change of a task.
    fn log_alone(&mut self, env: &mut Env<'_>, id: SessionId, change: &Change<'_>) {
        let logged = self.propose(env, id, change).is_some();
        if let Some(session) = self.sessions.get_mut(&id)
            && logged
        {
            session.request = RequestState::Logged;
        } else {
            self.settle(env.now, id);
        }
    }
}
