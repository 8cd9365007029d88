//! Groups: one publishes, and every member's connection sends it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::{Arc, Weak};

use crate::service::{Outbox, Post, PostError};
use crate::waker::Mailbox;
use crate::waker::sync::{Mutex, MutexGuard, lock};

/// Connections that are sent what is published, by topic.
///
/// A protocol joins with its [outbox](crate::Transport::outbox), and anybody, on any thread, publishes.
/// The members may be on several loops or threads of one process; a process of its own
/// ([`serve_forking`](crate::Server::serve_forking)) has a group of its own. A connection that has
/// ended is no member any more.
///
/// The data is not copied for each member, and counts once towards
/// [`max_buffered`](crate::Config::max_buffered) on each loop. Each member is sent what one publisher
/// publishes in the same order, also across loops. A member whose connection does not keep up loses
/// whole messages, or its connection, as the group's [`Lagging`] says, and holds up no other member.
///
/// ```
/// use serveloop::service::{Group, Lagging};
/// use serveloop::testing::MemorySession;
/// use serveloop::{Protocol, Result, Transport};
///
/// /// Everybody reads what anybody writes.
/// struct Chat(Group);
///
/// impl Protocol for Chat {
///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
///         self.0.join("everybody", &transport.outbox());
///         Ok(())
///     }
///
///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
///         self.0.publish("everybody", data);
///         Ok(data.len())
///     }
/// }
///
/// let group = Group::new(Lagging::DropOldest);
/// let (mut ann, mut bob) = (MemorySession::new(Chat(group.clone())), MemorySession::new(Chat(group)));
/// ann.receive(b"hello");
/// bob.run();
/// assert_eq!((ann.sent(), bob.sent()), (b"hello".to_vec(), b"hello".to_vec()));
/// ```
#[derive(Clone)]
pub struct Group {
    topics: Arc<Mutex<Topics>>,
    lagging: Lagging,
}

#[derive(Default)]
struct Topics {
    by_name: BTreeMap<Box<[u8]>, Topic>,
    /// When there are this many, those without members are forgotten.
    sweep_at: usize,
}

/// What happens when a member's outbox has no room for a message, since its connection does not keep
/// up. A message is sent as a whole or not at all.
///
/// ```
/// use serveloop::service::{Group, Lagging};
///
/// // Prices are soon replaced by the next ones; a line of a ledger must not be missing.
/// let (prices, ledger) = (Group::new(Lagging::DropOldest), Group::new(Lagging::Close));
/// # let _ = (prices, ledger);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lagging {
    /// The oldest messages that wait for the member are dropped.
    DropOldest,
    /// The new message is not sent to the member.
    DropNewest,
    /// The member's connection is ended at once, with the reason [`Lagging`](crate::CloseReason::Lagging).
    Close,
}

/// How many members a message was for.
///
/// ```
/// use serveloop::service::{Group, Lagging};
///
/// let group = Group::new(Lagging::DropNewest);
/// let published = group.publish("nobody is here", &b"news"[..]);
/// assert_eq!((published.sent, published.lagging), (0, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Members that are sent the message.
    pub sent: usize,
    /// Members that lost a message, or their connection, because they do not keep up.
    pub lagging: usize,
}

/// The members of a topic, by the loop or thread that serves them.
#[derive(Default)]
struct Topic {
    loops: BTreeMap<usize, Loop>,
    /// When there are this many, those without members are forgotten.
    sweep_at: usize,
}

/// The members that one loop or thread serves.
struct Loop {
    mailbox: Weak<Mailbox>,
    /// In the order of their ids.
    members: Vec<Outbox>,
}

impl Group {
    /// Creates a group without members.
    #[must_use]
    pub fn new(lagging: Lagging) -> Self {
        Self {
            topics: Arc::default(),
            lagging,
        }
    }

    /// Makes a connection a member of a topic. Returns false if it was one before.
    pub fn join(&self, topic: impl AsRef<[u8]>, outbox: &Outbox) -> bool {
        let mut topics = self.topics();
        topics.sweep();
        let topic = topics.by_name.entry(topic.as_ref().into()).or_default();
        topic.join(outbox)
    }

    /// Ends the membership of the connection with this [number](Outbox::id). Returns false if it was
    /// no member.
    pub fn leave(&self, topic: impl AsRef<[u8]>, id: u64) -> bool {
        let mut topics = self.topics();
        let Entry::Occupied(mut entry) = topics.by_name.entry(topic.as_ref().into()) else {
            return false;
        };
        let was_member = entry.get_mut().leave(id);
        if entry.get().loops.is_empty() {
            entry.remove();
        }
        was_member
    }

    /// Sends `data` to every member of a topic. Returns how many there are.
    pub fn publish(&self, topic: impl AsRef<[u8]>, data: impl Into<Arc<[u8]>>) -> Published {
        self.publish_to(topic.as_ref(), data.into(), None)
    }

    /// Works like [`publish`](Self::publish), for all members but the connection with this
    /// [number](Outbox::id), which is usually the one that publishes.
    pub fn publish_to_others(
        &self,
        topic: impl AsRef<[u8]>,
        except: u64,
        data: impl Into<Arc<[u8]>>,
    ) -> Published {
        self.publish_to(topic.as_ref(), data.into(), Some(except))
    }

    fn publish_to(&self, topic: &[u8], data: Arc<[u8]>, except: Option<u64>) -> Published {
        let mut topics = self.topics();
        let mut published = Published::default();
        let mut wakes = Vec::new();
        if let Some(members) = topics.by_name.get_mut(topic) {
            wakes = members.publish(&data, except, self.lagging, &mut published);
            if members.loops.is_empty() {
                topics.by_name.remove(topic);
            }
        }

        // Unlock first, because a driver may run its sessions in its wake, and they may publish.
        drop(topics);
        for (mailbox, sessions) in wakes {
            mailbox.push_posted_all(sessions);
        }
        published
    }

    /// Returns how many connections are members of a topic.
    #[must_use]
    pub fn members(&self, topic: impl AsRef<[u8]>) -> usize {
        let topics = self.topics();
        let loops = topics.by_name.get(topic.as_ref()).into_iter();
        let loops = loops.flat_map(|topic| topic.loops.values());
        let members = loops.flat_map(|one| &one.members);
        members.filter(|member| !member.is_closed()).count()
    }

    /// Returns the topics that have members, in the order of their bytes.
    #[must_use]
    pub fn topics_with_members(&self) -> Vec<Box<[u8]>> {
        let topics = self.topics();
        let alive = topics.by_name.iter().filter(|(_, topic)| topic.is_alive());
        alive.map(|(name, _)| name.clone()).collect()
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        lock(&self.topics)
    }
}

/// The fewest topics, or loops of one, that are worth a look for those without members.
const SWEPT_LEAST: usize = 64;

impl Topics {
    /// Forgets topics whose members have all ended, from time to time.
    fn sweep(&mut self) {
        if self.by_name.len() >= self.sweep_at.max(SWEPT_LEAST) {
            self.by_name.retain(|_, topic| topic.is_alive());
            self.sweep_at = 2 * self.by_name.len();
        }
    }
}

impl Loop {
    fn is_alive(&self) -> bool {
        self.members.iter().any(|member| !member.is_closed())
    }
}

impl Topic {
    fn is_alive(&self) -> bool {
        self.loops.values().any(Loop::is_alive)
    }

    fn join(&mut self, outbox: &Outbox) -> bool {
        if self.loops.len() >= self.sweep_at.max(SWEPT_LEAST) {
            self.loops.retain(|_, one| one.is_alive());
            self.sweep_at = 2 * self.loops.len();
        }

        // The address is not used again as long as there is a `Weak` to it.
        let key = outbox.mailbox().as_ptr().addr();
        let one = self.loops.entry(key).or_insert_with(|| Loop {
            mailbox: outbox.mailbox().clone(),
            members: Vec::new(),
        });

        if one.members.len() == one.members.capacity() {
            one.members.retain(|member| !member.is_closed());
        }
        let place = one.members.binary_search_by_key(&outbox.id(), Outbox::id);
        if let Err(place) = place {
            one.members.insert(place, outbox.clone());
        }
        place.is_err()
    }

    fn leave(&mut self, id: u64) -> bool {
        let mut was_member = false;
        self.loops.retain(|_, one| {
            if let Ok(place) = one.members.binary_search_by_key(&id, Outbox::id) {
                was_member = true;
                one.members.remove(place);
            }
            !one.members.is_empty()
        });
        was_member
    }

    /// Puts `data` into the outboxes of the members. Returns which sessions are to be woken for it.
    fn publish(
        &mut self,
        data: &Arc<[u8]>,
        except: Option<u64>,
        lagging: Lagging,
        published: &mut Published,
    ) -> Vec<(Arc<Mailbox>, Vec<usize>)> {
        let mut wakes = Vec::new();
        self.loops.retain(|_, one| {
            let Some(mailbox) = one.mailbox.upgrade() else {
                return false;
            };
            let post = Post::new(Arc::clone(data), one.mailbox.clone());
            let mut woken = Vec::with_capacity(one.members.len());

            let mut ended = Vec::new();
            let mut has_left = false;
            for member in &one.members {
                if except == Some(member.id()) {
                    continue;
                }
                if member.put_first(&post) {
                    woken.push(member.session());
                } else {
                    let sessions = (&mut woken, &mut ended);
                    has_left |= !offer(member, &post, lagging, published, sessions);
                }
            }

            published.sent += woken.len();
            woken.append(&mut ended);
            wakes.push((mailbox, woken));
            if has_left {
                one.members.retain(|member| !member.is_closed());
            }
            !one.members.is_empty()
        });
        wakes
    }
}

/// Offers a post to a member that has not got everything before. Returns false if it is none any more.
/// Sessions that are to be woken for the post are yet to be counted; those that are to be woken because
/// they end are not. No session is woken here, under the group's lock.
#[cold]
fn offer(
    member: &Outbox,
    post: &Post,
    lagging: Lagging,
    published: &mut Published,
    (woken, ended): (&mut Vec<usize>, &mut Vec<usize>),
) -> bool {
    let mut outcome = member.put(post);
    if outcome == Err(PostError::Full) {
        published.lagging += 1;
        match lagging {
            Lagging::DropNewest => return true,
            Lagging::Close => {
                if member.give_up() {
                    ended.push(member.session());
                }
                return false;
            }
            Lagging::DropOldest => {
                // If there is none, the member has just taken all, and has room.
                while outcome == Err(PostError::Full) {
                    member.drop_oldest();
                    outcome = member.put(post);
                }
            }
        }
    }

    match outcome {
        Ok(true) => {
            woken.push(member.session());
            true
        }
        Ok(false) => {
            published.sent += 1;
            true
        }
        Err(PostError::Full) => true,
        Err(PostError::Closed) => false,
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("topics", &self.topics().by_name.len())
            .field("lagging", &self.lagging)
            .finish()
    }
}
