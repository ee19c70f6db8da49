//! The attacks, by name. Each runs until it is over, and says when it is in effect.

#[path = "attacks/children.rs"]
mod children;
#[path = "attacks/connections.rs"]
mod connections;
#[path = "attacks/messages.rs"]
mod messages;
#[path = "attacks/multiplexed.rs"]
mod multiplexed;
#[path = "attacks/sessions.rs"]
mod sessions;

use crate::attacker::Hostile;

/// An attack.
pub(crate) type Attack = fn(&Hostile);

const ATTACKS: [(&str, Attack); 23] = [
    ("stdout", children::floods_stdout),
    ("stderr", children::floods_stderr),
    ("notifications-of-children", children::notifies),
    ("folders", children::litters),
    ("full-disk", children::fills_the_disk),
    ("crashes", children::crashes),
    ("hanging-starts", children::hangs),
    ("notifications-of-clients", messages::notifies),
    ("parked", messages::parks),
    ("big-bodies", messages::sends_big_bodies),
    ("slow-bodies", connections::drips_bodies),
    ("big-headers", messages::sends_big_headers),
    ("slow-headers", connections::drips_headers),
    ("strangers", messages::has_no_credential),
    ("unread-streams", connections::reads_no_stream),
    ("idle-1", connections::idles),
    ("idle-2", multiplexed::idles),
    ("http2-control", multiplexed::controls),
    ("http2-data", multiplexed::sends_nothing),
    ("http2-reset", multiplexed::resets),
    ("http2-continuation", multiplexed::continues),
    ("variants", sessions::varies),
    ("never-ended", sessions::never_ends),
];

/// The attack of this name.
pub(crate) fn find(name: &str) -> Option<Attack> {
    ATTACKS.iter().find(|(known, _)| *known == name).map(|(_, attack)| *attack)
}
