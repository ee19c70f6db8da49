//! The layers: defaults, the file over them, the environment over both.

use std::time::Duration;

use super::*;
use crate::config::{
    ChildLimits, ForwardedHeader, Http, Isolation, Log, LogFormat, Resend, ServerName, Sessions, TenantId,
};

#[test]
fn what_is_not_configured_is_the_default() {
    let config = valid(LEAST);
    let show = |value: &dyn std::fmt::Debug| format!("{value:?}");
    assert_eq!(show(&config.http), show(&Http::default()));
    assert_eq!(show(&config.log), show(&Log::default()));
    assert_eq!(show(&config.sessions), show(&Sessions::default()));
    assert_eq!(show(&config.servers["s"].limits), show(&ChildLimits::default()));
    assert_eq!(config.servers["s"].isolation, Isolation::Session);
    assert_eq!(config.admin, "127.0.0.1:9081".parse().ok());
    assert_eq!(config.drain_timeout, Duration::from_secs(20));
    assert_eq!(config.default_server, "s".parse::<ServerName>().ok());
    assert!(config.auth.keys.is_empty() && config.auth.jwt.is_none());
    assert_eq!((config.tenants["a"].servers.clone(), config.tenants["a"].max_sessions), (None, None));
}

#[test]
fn without_a_file_the_defaults_are_the_same() {
    let server = Server::new("s".parse().unwrap(), "sh", Vec::new());
    let config = Config::for_servers([server]);
    let show =
        |config: &Config| format!("{:?}", (&config.http, &config.log, &config.sessions, &config.servers, config.admin));
    assert_eq!(show(&config), show(&valid(LEAST)));
    assert_eq!(config.default_server, "s".parse().ok());
    assert!(config.auth.anonymous.is_none() && config.auth.keys.is_empty() && config.auth.jwt.is_none());
    assert!(config.tenants.contains_key(&TenantId::fallback()));
    let two = ["a", "b"].map(|name| Server::new(name.parse().unwrap(), "sh", Vec::new()));
    assert_eq!(Config::for_servers(two).default_server, None);
}

#[test]
fn the_file_goes_over_the_defaults() {
    let config = valid(
        "default_server = 'b'\n[http]\nlisten='127.0.0.1:1'\npublic_url='https://x.example/mcp/'\nallowed_hosts=['X.example.', '2001:DB8::1', '[::1]']\n\
         allowed_origins=['https://App.example:8443', 'HTTPS://b.example:443']\nkeep_alive='1m'\nmax_body=2048\n[admin]\nlisten='off'\n[log]\nformat='json'\n\
         [shutdown]\ndrain_timeout='0s'\n[auth]\nanonymous='t'\n[tenants.t]\nservers=['a']\nmax_sessions=3\n\
         [limits]\nterm_grace='7s'\nmax_line='2MiB'\n[servers.a]\ncommand='sh'\nargs=['-c','exit']\n[servers.a.limits]\nmax_line='1MiB'\n\
         [servers.b]\ncommand='sh'\n",
    );
    assert_eq!(config.http.listen, "127.0.0.1:1".parse().unwrap());
    assert_eq!(config.http.public_url.as_deref(), Some("https://x.example/mcp"));
    assert_eq!(config.http.allowed_hosts, ["x.example", "[2001:db8::1]", "[::1]"]);
    assert_eq!(config.http.allowed_origins, ["https://app.example:8443", "https://b.example"]);
    assert_eq!((config.http.keep_alive, config.http.max_body), (Duration::from_secs(60), 2048));
    assert_eq!((config.admin, config.log.format, config.drain_timeout), (None, LogFormat::Json, Duration::ZERO));
    assert_eq!(config.default_server, "b".parse().ok());
    assert_eq!(config.tenants["t"].servers, Some(vec!["a".parse().unwrap()]));
    assert_eq!(config.tenants["t"].max_sessions, Some(3));
    let limits = |name: &str| (config.servers[name].limits.max_line, config.servers[name].limits.term_grace);
    assert_eq!(limits("a"), (1 << 20, Duration::from_secs(7)));
    assert_eq!(limits("b"), (2 << 20, Duration::from_secs(7)));
    assert_eq!(config.servers["a"].args, ["-c", "exit"]);
}

#[test]
fn keys_keep_hash_tenant_and_scopes() {
    let config = valid(
        "[[auth.keys]]\nprefix='Ab1'\nsha256='00ffA00000000000000000000000000000000000000000000000000000000001'\ntenant='t'\n\
         scopes=['x']\n[tenants.t]\n[servers.a]\ncommand='sh'\n",
    );
    let key = &config.auth.keys[0];
    assert_eq!((key.prefix.as_str(), key.subject.as_str(), key.tenant.as_str()), ("Ab1", "Ab1", "t"));
    assert_eq!((&key.sha256[..3], key.sha256[31]), ([0, 0xff, 0xa0].as_slice(), 1));
    assert_eq!(key.scopes, ["x"]);
}

#[test]
fn variables_go_over_the_file() {
    let environment = environment(&[
        ("SLUICE__HTTP__LISTEN", "127.0.0.1:2"),
        ("SLUICE__HTTP__MAX_BATCH", "7"),
        ("SLUICE__HTTP__MAX_BODY", "1MiB"),
        ("SLUICE__ADMIN__LISTEN", "off"),
        ("SLUICE__LOG__FILTER", "debug"),
        ("SLUICE__SHUTDOWN__DRAIN_TIMEOUT", "1s"),
        ("SLUICE__SESSIONS__MAX", "200"),
        ("SLUICE_KEY", "not-a-setting-and-long-enough-to-be-a-key"),
    ]);
    let text = format!("{LEAST}[http]\nlisten='127.0.0.1:1'\nmax_depth=9\n");
    let config = Files::new().load(&text, &environment).unwrap().config;
    assert_eq!(config.http.listen, "127.0.0.1:2".parse().unwrap());
    assert_eq!((config.http.max_batch, config.http.max_body, config.http.max_depth), (7, 1 << 20, 9));
    assert_eq!((config.admin, config.log.filter.as_str()), (None, "debug"));
    assert_eq!((config.drain_timeout, config.sessions.max), (Duration::from_secs(1), 200));
}

#[test]
fn a_problem_with_a_variable_names_the_variable() {
    let environment = environment(&[
        ("SLUICE__HTTP__LISTEN", "nowhere"),
        ("SLUICE__HTTP__MAX_BATCH", "many"),
        ("SLUICE__HTTP__ALLOWED_HOSTS", "a.example"),
        ("SLUICE__LOG__FILTR", "info"),
        ("SLUICE__SERVERS__S__ENV__GITHUB_TOKEN", "hunter2"),
        ("SLUICE__AUTH__ANONYMOUS", "a"),
        ("SLUICE__HTPP__LISTEN", "x"),
        ("SLUICE__", "x"),
    ]);
    let problems = Files::new().load(LEAST, &environment).unwrap_err();
    let places: Vec<String> = problems.list().iter().map(place).collect();
    let expected = [
        "SLUICE__ ",
        "SLUICE__AUTH__ANONYMOUS ",
        "SLUICE__HTPP__LISTEN ",
        "SLUICE__HTTP__ALLOWED_HOSTS http.allowed_hosts",
        "SLUICE__HTTP__LISTEN http.listen",
        "SLUICE__HTTP__MAX_BATCH http.max_batch",
        "SLUICE__LOG__FILTR log.filtr",
        "SLUICE__SERVERS__S__ENV__GITHUB_TOKEN ",
    ];
    assert_eq!(places, expected, "{problems}");
    let text = problems.to_string();
    assert!(text.contains("SLUICE__HTTP__LISTEN: http.listen: \"nowhere\" is not an IP address"), "{text}");
    assert!(text.contains("did you mean \"http\"?") && text.contains("did you mean \"filter\"?"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn what_is_doubtful_is_a_warning() {
    let text = format!("{}[http]\nlisten='0.0.0.0:8081'\n[admin]\nlisten='0.0.0.0:9081'\n", KEYED);
    let loaded = load(&text).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(place).collect();
    assert_eq!(warnings, ["8 http.allowed_hosts", "8 http.trusted_proxies", "11 admin.listen"]);
}

#[test]
fn proxies_are_addresses_or_networks_and_everybody_is_a_doubtful_one() {
    let load = |http: &str| load(&format!("{LEAST}[http]\n{http}\n"));
    let warned =
        |http: &str| load(http).unwrap().warnings.iter().map(|warning| warning.text.clone()).collect::<Vec<_>>();
    let good = "trusted_proxies=['10.0.0.0/8', '::1']\nforwarded_header='forwarded'\nproxy_protocol=true";
    let loaded = load(good).unwrap();
    let proxies = &loaded.config.http.proxies;
    assert!(loaded.warnings.is_empty() && proxies.protocol && proxies.header == ForwardedHeader::Forwarded);
    assert!(proxies.trusts("10.1.2.3".parse().unwrap()) && !proxies.trusts("127.0.0.1".parse().unwrap()));
    assert!(warned("trusted_proxies=['0.0.0.0/0']")[0].contains("everybody"));
    assert!(warned("public_url='https://x.example'")[0].contains("its clients count as one"));
    assert!(warned("forwarded_header='forwarded'")[0].contains("not read"));
    for wrong in
        ["trusted_proxies=['proxy']", "trusted_proxies=['10.0.0.1/8']", "proxy_protocol=true", "forwarded_header='x'"]
    {
        assert_eq!(load(wrong).unwrap_err().list().len(), 1, "{wrong}");
    }
}

#[test]
fn a_log_filter_without_a_level_is_a_warning_where_that_may_be_a_mistake() {
    for (filter, warnings) in [
        ("loud", 1),
        ("wran,sluice=debug", 1),
        ("info", 0),
        ("WARN,hyper", 0),
        ("sluice::worker", 0),
        ("hyper=debug", 0),
        ("", 0),
    ] {
        let loaded = load(&format!("{KEYED}[log]\nfilter={filter:?}\n")).unwrap();
        assert_eq!(loaded.warnings.len(), warnings, "{filter}: {:?}", loaded.warnings);
    }
}

const KEYED: &str = "[[auth.keys]]\nprefix='A'\nsha256='0000000000000000000000000000000000000000000000000000000000000000'\n\
                     tenant='a'\n[tenants.a]\n[servers.s]\ncommand='sh'\n";

#[test]
fn what_a_cancelled_call_may_still_cause_is_as_its_server_says_or_all() {
    let grace = |limits: &str| valid(&format!("{LEAST}{limits}")).servers["s"].limits.cancel_grace;
    assert_eq!(grace(""), None);
    assert_eq!(grace("[limits]\ncancel_grace = '5s'\n"), Some(Duration::from_secs(5)));
    let both = "[servers.s.limits]\ncancel_grace = '1500ms'\n[limits]\ncancel_grace = '5s'\n";
    assert_eq!(grace(both), Some(Duration::from_millis(1500)));
}

#[test]
fn a_tool_has_what_is_said_of_it_and_the_rest_from_its_server() {
    let config = valid(&format!(
        "{LEAST}[servers.s.limits]\ncall_timeout = '5s'\nping_interval = 'off'\n[servers.s.restart]\nresend = 'read_only'\n\
         [servers.s.tools.slow]\ntimeout = '1h'\n[servers.s.tools.'odd.Name/x']\nresend = true\n[servers.s.tools.once]\nresend = false\n"
    ));
    let server = &config.servers["s"];
    assert_eq!(server.limits.ping_interval, None);
    let seconds = |tool| server.call_timeout(tool).as_secs();
    assert_eq!((seconds(Some("slow")), seconds(Some("once")), seconds(Some("other")), seconds(None)), (3600, 5, 5, 5));
    for (tool, resend) in [
        ("slow", Resend::ReadOnly),
        ("odd.Name/x", Resend::Always),
        ("once", Resend::Never),
        ("other", Resend::ReadOnly),
    ] {
        assert_eq!(server.resend(tool), resend, "{tool}");
    }
    assert!(server.minds_tools() && !valid(LEAST).servers["s"].minds_tools());
}
