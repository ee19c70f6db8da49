//! Reads `[auth]`: anonymous access, API keys, and JWTs. A mistake here gives less access, never more.

use std::collections::BTreeMap;

use secrecy::ExposeSecret as _;

use super::api_key::is_prefix;
use super::chosen_key::ChosenKey;
use super::jwt;
use super::model::{ApiKey, Auth, Http, Tenant};
use super::names::TenantId;
use super::section::Section;

/// The variable with the tenant of the chosen key. Needed if there are several tenants.
const KEY_TENANT: &str = "SLUICE_TENANT";
/// The text of the problem that there is no credential.
const NOBODY: &str = "nobody could call; add a key (\"sluice key new\" prints the entry for [[auth.keys]]) or [auth.jwt], \
                      set SLUICE_KEY_FILE, or set anonymous = \"TENANT\" on a loopback listener";

/// Reads `[auth]`. It may name only tenants of `tenants`.
pub(super) fn read(section: &mut Section<'_>, http: &Http, tenants: &BTreeMap<TenantId, Tenant>) -> Auth {
    let before = section.reading.problems();
    let anonymous = tenant(section, "anonymous", tenants);
    if anonymous.is_some() && !http.listen.ip().is_loopback() {
        let text = format!(
            "anybody who reaches {} could call; remove it and add keys ([[auth.keys]]), or listen on loopback only",
            http.listen
        );
        section.problem("anonymous", text);
    }
    let mut first_use = BTreeMap::new();
    let keys = section.list("keys", |index, entry| key(entry, index, tenants, &mut first_use));
    let (chosen, unused) = key_of_environment(section, tenants);
    let keys: Vec<_> = keys.into_iter().flatten().chain(chosen).collect();
    let jwt = section.table("jwt", jwt::read);
    if anonymous.is_none() && keys.is_empty() && jwt.is_none() && section.reading.problems() == before {
        let text = unused.map_or_else(|| NOBODY.to_owned(), |why| format!("nobody could call: {why}"));
        section.reading.problem(&section.path, text);
    } else if let Some(why) = unused {
        // A client's variable in the gateway's shell is no reason not to start.
        section.reading.warning(&section.path, why);
    }
    Auth { anonymous, keys, jwt }
}

/// The API key that an option or a variable gives: a container then needs no other credential. If the tenant of the key
/// is unclear, the reason why the key is not used in its place.
fn key_of_environment(section: &Section<'_>, tenants: &BTreeMap<TenantId, Tenant>) -> (Option<ApiKey>, Option<String>) {
    let environment = section.reading.environment;
    let chosen = match ChosenKey::of(environment) {
        Ok(Some(chosen)) => chosen,
        Ok(None) => return (None, None),
        Err(problem) => {
            section.reading.findings.borrow_mut().problems.push(problem);
            return (None, None);
        }
    };
    section.reading.own.borrow_mut().extend(chosen.own_file());
    let named = environment.get(KEY_TENANT);
    let tenant = match named {
        Some(name) => tenants.keys().find(|tenant| tenant.as_str() == name),
        None => tenants.keys().next().filter(|_| tenants.len() == 1),
    };
    let why = match named {
        Some(_) => format!("{KEY_TENANT} names no tenant of this file"),
        None => format!("there are several tenants; set {KEY_TENANT} to one of them"),
    };
    let unused = tenant.is_none().then(|| format!("the key in {} is not used: {why}", chosen.name));
    let plain = chosen.key.expose_secret();
    let key = tenant.map(|tenant| ApiKey::from_plain(plain, tenant.clone(), "env".to_owned(), Vec::new()));
    *section.reading.chosen_key.borrow_mut() = Some(chosen);
    (key, unused)
}

/// Reads entry `index` of `auth.keys`. `first_use` has the index of each prefix seen so far.
fn key(
    s: &mut Section<'_>,
    index: usize,
    tenants: &BTreeMap<TenantId, Tenant>,
    first_use: &mut BTreeMap<String, usize>,
) -> Option<ApiKey> {
    let prefix = required(s, "prefix").filter(|prefix| {
        // An underscore ends the prefix in `slk_<prefix>_<secret>`.
        let fits = is_prefix(prefix);
        if !fits {
            s.problem("prefix", "not a key's prefix; copy the letters and digits between \"slk_\" and the next \"_\"");
        }
        fits
    });
    if let Some(first) = prefix.clone().and_then(|prefix| first_use.insert(prefix, index)) {
        s.problem("prefix", format!("auth.keys[{first}] has the same; make a new key with \"sluice key new\""));
    }
    let sha256 = required(s, "sha256").and_then(|text| {
        let hash = decode(&text);
        if hash.is_none() {
            s.problem("sha256", "not 64 hexadecimal digits; copy what \"sluice key new\" printed");
        }
        hash
    });
    if !s.has("tenant") {
        missing(s, "tenant");
    }
    let tenant = tenant(s, "tenant", tenants);
    // A key without a subject of its own is its own subject: no two keys share sessions by accident.
    let subject = s.nonempty("subject").or_else(|| prefix.clone());
    let scopes = s.strings("scopes");
    Some(ApiKey { prefix: prefix?, sha256: sha256?, tenant: tenant?, subject: subject?, scopes })
}

/// A string that must be there and must not be blank.
fn required(section: &mut Section<'_>, key: &str) -> Option<String> {
    if !section.has(key) {
        missing(section, key);
    }
    section.nonempty(key)
}

fn missing(section: &Section<'_>, key: &str) {
    section.problem(key, "missing; copy the entry that \"sluice key new\" printed");
}

/// The tenant that a key names. A problem if the configuration has no such tenant; the name is returned all the same.
fn tenant(section: &mut Section<'_>, key: &str, tenants: &BTreeMap<TenantId, Tenant>) -> Option<TenantId> {
    let tenant = section.string(key)?.parse::<TenantId>();
    let tenant = tenant.map_err(|error| section.problem(key, error.to_string())).ok()?;
    if !tenants.contains_key(&tenant) {
        let hint = super::suggest::nearest(tenant.as_str(), tenants.keys().map(TenantId::as_str));
        section.problem(key, format!("there is no tenant \"{tenant}\"{hint}; add [tenants.{tenant}]"));
    }
    Some(tenant)
}

/// The 32 bytes that 64 hexadecimal digits stand for. `None` for other text.
fn decode(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}
