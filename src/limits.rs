//! Every bound of the system in one place, with the relations between them checked by the compiler.

use std::time::Duration;

/// The longest request line with its line end, in bytes; answers are never longer.
pub const LINE_BYTES_MAX: usize = 4096;
/// The longest text of a message with its title, in bytes; each line break counts as the
/// character that stands for it in a line.
pub const TEXT_BYTES_MAX: usize = 3840;
/// The longest attributes of a message, in bytes: a title of 250, a priority, tags and click of
/// 255, each with a key and a length.
pub const ATTRIBUTES_BYTES_MAX: usize = 250 + 1 + 2 * 255 + 4 * 2;
/// The shortest password, in bytes.
pub const PASSWORD_BYTES_MIN: usize = 8;
/// The longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 128;
/// The longest key of an idempotent request, in bytes.
pub const KEY_BYTES_MAX: usize = 64;
/// Entries of the log for which a key of an idempotent request is remembered; few in unit tests.
pub const KEYS_KEPT: u64 = if cfg!(test) { 64 } else { 262_144 };
/// Entries after each of which servers compare a digest of their state.
pub const DIGEST_ENTRIES: u64 = 10_000;
/// The newest digests of each server that are remembered.
pub const DIGESTS_KEPT: usize = 16;
/// The longest password hash as text (PHC string), in bytes.
pub const HASH_BYTES_MAX: usize = 256;

/// The longest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 8192;
/// Records in one frame between servers, in bytes.
pub const ENTRIES_BYTES_MAX: usize = 256 * 1024;
/// The longest frame between servers, without its length field, in bytes.
pub const FRAME_BYTES_MAX: usize = ENTRIES_BYTES_MAX + 1024;
/// The longest first message on an encrypted link, in bytes. Its sender is unauthenticated until
/// it is read. A hello is shorter.
pub const FIRST_BYTES_MAX: usize = 1024;
/// Newest starts of a disk that its hello lists. They identify a copied directory, until the copy
/// was started this often without meeting a server that recognizes it.
pub const RUNS_KEPT: usize = 16;
/// Other disks whose newest starts are remembered: those of the group and the last few that it
/// lost.
pub const SEEN_MAX: usize = 16;
/// Copies of one disk that are remembered.
pub const COPIES_MAX: usize = 4;
/// Epochs that a hello lists: the newest ones in its sender's log.
pub const ANCESTRY_MAX: usize = 16;
/// Messages on an encrypted link in one direction, after which its key is changed; few in unit
/// tests.
pub const REKEY_MESSAGES: u64 = if cfg!(test) { 32 } else { 1 << 16 };
/// Memory that an empty buffer of a busy link keeps, in bytes: enough for a long frame.
pub const LINK_KEPT_BYTES_MAX: usize = 512 * 1024;
/// Memory that an empty buffer of a busy client keeps, in bytes.
pub const CLIENT_KEPT_BYTES_MAX: usize = 4 * 1024;
/// Busy connections whose empty buffers keep their memory.
pub const WARM_CONNECTIONS_MAX: usize = 256;
/// Frames with entries that may be unacknowledged by a peer at the same time.
pub const APPENDS_IN_FLIGHT_MAX: usize = 4;
/// Size at which the log starts a new segment, in bytes; small in unit tests.
pub const SEGMENT_BYTES: u64 = if cfg!(test) { 1024 * 1024 } else { 64 * 1024 * 1024 };
/// Earlier segments of the log whose files may be open at the same time.
pub const SEGMENTS_OPEN_MAX: usize = 8;
/// Index files that are merged into a checkpoint at the same time; two in the simulator, whose logs
/// are short.
pub const MERGED_MAX: usize = if cfg!(feature = "simulate") { 2 } else { 32 };
/// A new checkpoint is made when the log has grown by this many times the bytes of the last one,
/// unless [`MERGED_MAX`] is reached before.
pub const CHECKPOINT_GROWTH: u64 = 16;
/// From one round that frees the space of removed messages to the next.
pub const COMPACTION_TIME: Duration = Duration::from_secs(match () {
    () if cfg!(feature = "simulate") => 30,
    // Tests of whole servers wait for it.
    () if cfg!(debug_assertions) => 1,
    () => 120,
});
/// Accounts that are asked for in a turn, to find removed messages.
pub const SURVEYED_PER_TURN: usize = 4096;
/// Mailboxes that a primary examines for old messages in a turn, without reading them.
pub const EXAMINED_PER_TURN: usize = 256;
/// From one read of old messages, to forget them, to the next.
pub const FORGET_STEP_TIME: Duration = Duration::from_millis(10);
/// From how many bytes on an entry that forgets messages is full.
pub const FORGET_BYTES: usize = 4096;
/// Bytes of sealed segments that the scrub reads at a time.
pub const SCRUB_BYTES: u64 = 1024 * 1024;
/// The newest part of the log that is served from memory, in bytes.
pub const TAIL_BYTES_MAX: usize = 512 * 1024;
/// Bytes that are read from a file at a time.
pub const FILE_PIECE_BYTES: usize = 256 * 1024;
/// Free space below which a disk counts as full, in bytes. It suffices for changes in progress,
/// votes and membership changes.
pub const SPACE_RESERVED: u64 = 64 * 1024 * 1024;
/// Space that each data directory reserves for a start on a full disk, in bytes.
pub const RESERVE_BYTES: u64 = 1024 * 1024;
/// After this time, a file that found no room is tried again.
pub const JOB_RETRY_TIME: Duration = Duration::from_secs(10);
/// Interval of checking the free space and of releasing memory that connections do not use.
pub const SPACE_TIME: Duration = Duration::from_secs(1);
/// Quarantined directories that are remembered.
pub const FORMER_KEPT: usize = 16;

/// Unanswered requests of one connection at which the server stops reading from it.
pub const REQUESTS_MAX: usize = 64;
/// Size of a connection's outgoing buffer, in bytes. While it holds more, only answers are added.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Accepted but unanswered changes of all clients together, in bytes.
pub const UNANSWERED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Passwords that wait to be hashed.
pub const HASHES_MAX: usize = 256;
/// Passwords that the hashing thread holds. The second one saves it from waiting for the event
/// loop.
pub const HASHES_AT_WORK: usize = 2;
/// Remembered passwords that one server sends to another at a time.
pub const PROOFS_PER_PIECE: usize = 2048;
/// Remembered passwords beyond one for each account, for accounts that a backup does not know
/// yet.
pub const PROOFS_SPARE: usize = 4096;
/// How long a wrong password counts.
pub const ATTEMPT_WINDOW: Duration = Duration::from_secs(60);
/// Wrong passwords for one name from one address within [`ATTEMPT_WINDOW`] at which further
/// attempts must wait.
pub const ATTEMPTS_PER_NAME: usize = 5;
/// Wrong passwords from one address within [`ATTEMPT_WINDOW`] at which further attempts must
/// wait.
pub const ATTEMPTS_PER_ORIGIN: usize = 20;
/// Addresses whose wrong passwords are remembered.
pub const ORIGINS_REMEMBERED: usize = 1024;
/// Bytes read from one connection in one turn.
pub const READ_BYTES_PER_TURN: usize = 64 * 1024;
/// Bytes read from one peer in one turn.
pub const PEER_READ_BYTES_PER_TURN: usize = 1024 * 1024;
/// Entries applied in one turn when many wait, so that a long log does not block the loop.
pub const APPLIED_PER_TURN: usize = 4096;
/// Messages of one mailbox whose positions are collected at a time.
pub const MESSAGES_PER_STEP: usize = 256;
/// Messages checked for a `SENT` in one turn.
pub const SENT_PER_TURN: usize = 256;
/// Steps of reading in one turn, for all sessions together: searches in index files, and parts of
/// the names for a `LIST`. The others wait for the next turn.
pub const READ_STEPS_PER_TURN: usize = 16;
/// Accounts checked for a `LIST` in one step.
pub const LISTED_PER_STEP: usize = 1024;

/// Accounts in one answer to an operator.
pub const USERS_PER_ANSWER: usize = 1000;

/// Connections over `max_clients` that may still send their first byte.
pub const OVERFLOW_PLACES: usize = 16;
/// How long a connection over `max_clients` may take for its first byte.
pub const OVERFLOW_TIME: Duration = Duration::from_secs(1);
/// Connections that claim to be servers and have not yet proved that they know the secret.
pub const HANDSHAKING_LINKS_MAX: usize = 16;
/// Distinct warnings that are remembered, so that each is logged once a minute.
pub const LOGGED_WARNINGS_MAX: usize = 64;
/// Incoming links that have not sent a hello yet.
pub const UNKNOWN_LINKS_MAX: usize = 16;
/// Descriptors kept for files, peers, listener and poll when `max_clients` follows the file limit.
pub const DESCRIPTORS_RESERVED: u64 = 128;
/// How long a client that is half-closed, not logged in, or about to be closed may leave its
/// output unread. A shorter login timeout applies instead.
pub const SLOW_TIME: Duration = Duration::from_secs(60);

/// The least `peer_timeout_ms`.
pub const PEER_TIMEOUT_MS_MIN: u64 = 100;
/// The greatest `peer_timeout_ms`.
pub const PEER_TIMEOUT_MS_MAX: u64 = 60_000;
/// The longest time from one batch to the next while entries wait.
pub const BATCH_TIME: Duration = Duration::from_millis(5);
/// The first delay between two dials of a lost peer.
pub const REDIAL_TIME: Duration = Duration::from_millis(50);
/// After this time, an undecided dial gets a second one beside it.
pub const DIAL_UNDECIDED_TIME: Duration = Duration::from_millis(5);
/// Immediate redials of one lost link after dials that ended without a hello.
pub const QUICK_DIALS_MAX: u32 = 64;
/// The longest delay that the coin flip before a takeover draws.
pub const COIN_TIME: Duration = Duration::from_millis(10);
/// The wait of the higher id with `takeover = "rank"`.
pub const RANK_TIME: Duration = Duration::from_millis(20);
/// Drops of a server within `PENALTY_WINDOW` after which it must wait. Announced stops do not
/// count.
pub const PENALTY_DROPS: usize = 3;
/// See [`PENALTY_DROPS`].
pub const PENALTY_WINDOW: Duration = Duration::from_secs(60);
/// How long a server that was dropped too often waits before it is added again.
pub const PENALTY_TIME: Duration = Duration::from_secs(30);
/// Own syncs of over half the peer timeout within `SLOW_WINDOW` after which a primary hands over.
pub const SLOW_SYNCS: usize = 3;
/// See [`SLOW_SYNCS`].
pub const SLOW_WINDOW: Duration = Duration::from_secs(60);
/// How long a server waits for entries that it needs to repair its log, before it asks another one.
pub const FETCH_TIME: Duration = Duration::from_secs(5);
/// How long a start goes on without a word about how far it is.
pub const PROGRESS_TIME: Duration = Duration::from_secs(1);
/// How long a primary that can't read its log waits before it tries to hand over again. Also the
/// pause after files could not be made, or damage not be repaired.
pub const DAMAGED_TIME: Duration = Duration::from_secs(60);
/// How long the median of the clocks is valid without a ping that measures one of them.
pub const CLOCK_TIME: Duration = Duration::from_secs(60);
/// A larger difference between two servers' clocks is logged.
pub const SKEW_MAX: Duration = Duration::from_secs(1);
/// The shortest time between two such log lines.
pub const SKEW_WARNING_TIME: Duration = Duration::from_secs(60);
/// The longest time for which a server that sends invalid data is refused.
pub const SHUN_TIME_MAX: Duration = Duration::from_secs(60);
/// After this time without another batch, a header of its own follows the last one.
pub const SEAL_TIME: Duration = Duration::from_secs(1);

const _: () = {
    // The longest answer is a SENT line: two numbers, time, name, title, text, and what parts
    // them.
    assert!("SENT ".len() + 2 * (20 + 1) + 24 + 1 + 32 + 1 + 2 + TEXT_BYTES_MAX < LINE_BYTES_MAX);
    // The longest ONCE fits in a line.
    let head = "ONCE ".len() + KEY_BYTES_MAX + 1 + 32 + 1;
    assert!(head + TEXT_BYTES_MAX + "\r\n".len() <= LINE_BYTES_MAX);
    // The longest message fits in a record: head, two names, key, text, their lengths, an index,
    // attributes.
    let message = 33 + 2 * (2 + 32) + 2 + KEY_BYTES_MAX + 2 + TEXT_BYTES_MAX + 8;
    assert!(message + ATTRIBUTES_BYTES_MAX <= RECORD_BYTES_MAX);
    // One more mailbox fits: its name, an index, and two numbers.
    assert!(33 + FORGET_BYTES + 2 + 32 + 3 * 8 <= RECORD_BYTES_MAX);
    assert!(RECORD_BYTES_MAX <= ENTRIES_BYTES_MAX);
    assert!(ENTRIES_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(FRAME_BYTES_MAX < LINK_KEPT_BYTES_MAX);
    assert!(UNANSWERED_BYTES_MAX as u64 <= SPACE_RESERVED / 2);
    assert!(PROOFS_PER_PIECE * 24 < ENTRIES_BYTES_MAX);
    assert!(LINE_BYTES_MAX + OUTPUT_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(0 < HASHES_AT_WORK && HASHES_AT_WORK < HASHES_MAX);
    assert!(USERS_PER_ANSWER * ("USER ".len() + 32 + " offline\n".len()) < OUTPUT_BYTES_MAX);
    assert!(FIRST_BYTES_MAX < u16::MAX as usize / 2);
    assert!(ENTRIES_BYTES_MAX <= FILE_PIECE_BYTES);
    // All answers of one connection beside a full buffer stay small.
    assert!(REQUESTS_MAX * LINE_BYTES_MAX <= 4 * OUTPUT_BYTES_MAX);
    assert!(SEGMENT_BYTES < u32::MAX as u64 / 2);
    assert!((SEGMENTS_OPEN_MAX as u64) < DESCRIPTORS_RESERVED / 4);
};
