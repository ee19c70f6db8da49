//! Broken files: every problem is named at once, with its line and key, and says what to do.

use super::*;

/// A name, a file, and all its problems: place, and a part of the text.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

#[track_caller]
fn check(cases: &[Case]) {
    for (name, text, expected) in cases {
        let Err(problems) = load(text) else { panic!("{name}: was taken as valid") };
        let places: Vec<String> = problems.list().iter().map(place).collect();
        let wanted: Vec<&str> = expected.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, wanted, "{name}:\n{problems}");
        for (problem, (_, part)) in problems.list().iter().zip(*expected) {
            assert!(problem.text.contains(part), "{name}: {part:?} is not in: {problem}");
        }
    }
}

#[test]
fn a_problem_prints_file_line_key_and_advice() {
    let files = Files::new();
    let problems = files.load(&format!("{LEAST}[sessions]\nidle_timeout = 30\n"), &Environment::default()).unwrap_err();
    let file = files.folder.path().join("sluice.toml");
    let expected =
        format!("{}:7: sessions.idle_timeout: a number without a unit; write \"30s\" for seconds", file.display());
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_one_problem() {
    let missing = Config::load(std::path::Path::new("/nonexistent/sluice.toml"), &Environment::default()).unwrap_err();
    assert!(missing.to_string().starts_with("/nonexistent/sluice.toml: cannot be read: "), "{missing}");
    check(&[
        ("an open text", "[http]\nlisten = \"127\n", &[("2 ", "not valid TOML")]),
        ("a key twice", "[log]\nfilter = 'info'\nfilter = 'debug'\n", &[("3 ", "duplicate key")]),
        ("a table twice", "[log]\n[http]\n[log]\n", &[("3 ", "duplicate key")]),
        ("an integer too large", "[sessions]\nmax = 99999999999999999999\n", &[("2 ", "not valid TOML")]),
    ]);
}

#[test]
fn a_syntax_error_does_not_print_the_line() {
    let problems = load("[auth.jwt]\nsecret = hunter2hunter2\n").unwrap_err();
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
}

#[test]
fn an_empty_file_says_what_is_needed() {
    check(&[(
        "empty",
        "",
        &[
            ("1 auth", "nobody could call"),
            ("1 servers", "add one: [servers.NAME]"),
            ("1 tenants", "add one: [tenants.NAME]"),
        ],
    )]);
}

#[test]
fn all_problems_are_found_in_one_pass() {
    check(&[(
        "all at once",
        r#"
default_server = "fles"
wat = 1

[http]
listen = "localhost:8081"
header_timout = "10s"
max_body = "16mb"
allowed_hosts = ["https://mcp.example.com", "ok.example.com"]

[sessions]
max = 10
max_per_principal = 20

[auth]
anonymous = "nobody"

[[auth.keys]]
prefix = "A1"
sha256 = "12"
tenant = "acme"

[[auth.keys]]
prefix = "A1"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
tenant = "acmee"

[tenants.acme]
servers = ["files", "time"]

[servers.files]
command = ""
cwd = "/nonexistent"
isolation = "tenant"
env = { TOKEN = "env:NOT_SET" }
limits = { max_line = 0 }
"#,
        &[
            ("2 default_server", "there is no server \"fles\" (did you mean \"files\"?)"),
            ("3 wat", "unknown key"),
            ("6 http.listen", "not an IP address and a port"),
            ("7 http.header_timout", "unknown key (did you mean \"header_timeout\"?)"),
            ("8 http.max_body", "not a size"),
            ("9 http.allowed_hosts[0]", "without scheme"),
            ("13 sessions.max_per_principal", "more than max (10)"),
            ("16 auth.anonymous", "there is no tenant \"nobody\""),
            ("20 auth.keys[0].sha256", "not 64 hexadecimal digits"),
            ("24 auth.keys[1].prefix", "auth.keys[0] has the same"),
            ("26 auth.keys[1].tenant", "(did you mean \"acme\"?)"),
            ("29 tenants.acme.servers[1]", "there is no server \"time\""),
            ("32 servers.files.command", "empty"),
            ("33 servers.files.cwd", "there is no folder /nonexistent"),
            ("35 servers.files.env.TOKEN", "\"NOT_SET\" is not set"),
            ("36 servers.files.limits.max_line", "0B is out of bounds; use 1KiB to 1GiB"),
        ],
    )]);
}

#[test]
fn types_bounds_and_names() {
    check(&[
        (
            "wrong types",
            "http = 1\nservers = 'x'\ntenants = []\n[auth]\nkeys = 5\njwt = true\n[log]\nfilter = 5\n",
            &[
                ("1 http", "a number where a table belongs; write [http]"),
                ("2 servers", "a text where a table belongs"),
                ("2 servers", "there is no server"),
                ("3 tenants", "a list where a table belongs"),
                ("3 tenants", "there is no tenant"),
                ("5 auth.keys", "write [[auth.keys]]"),
                ("6 auth.jwt", "true or false where a table belongs"),
                ("8 log.filter", "put it in quotes"),
            ],
        ),
        (
            "bounds",
            "[auth]\nanonymous='a'\n[tenants.a]\nmax_sessions=0\n[servers.s]\ncommand='sh'\nargs=['a',1]\n[http]\n\
             max_batch=0\nmax_connections=-1\nheader_timeout='0s'\nbody_timeout='2h'\nstream_bytes=-5\nmax_depth=1.5\n\
             [limits]\nstdin_grace='0s'\nstart_timeout='2h'\ncancel_grace='0s'\n",
            &[
                ("4 tenants.a.max_sessions", "use 1 to 1000000"),
                ("7 servers.s.args[1]", "a number where a text belongs"),
                ("9 http.max_batch", "0 is out of bounds"),
                ("10 http.max_connections", "not a whole number"),
                ("11 http.header_timeout", "0s is out of bounds; use 1ms to 1h"),
                ("12 http.body_timeout", "2h is out of bounds"),
                ("13 http.stream_bytes", "negative"),
                ("14 http.max_depth", "not a whole number"),
                ("17 limits.start_timeout", "2h is out of bounds; use 1ms to 1h"),
                ("18 limits.cancel_grace", "0s is out of bounds; use 1ms to 24h"),
            ],
        ),
        (
            "names",
            "[auth]\nanonymous='a'\n[tenants.a]\n[tenants.'b c']\n[servers.'-x']\ncommand='sh'\n[servers.s]\n\
             command='sh'\nargz=[]\nenv={'A=B'='1'}\npass_env=['']\nisolation='none'\n[servers.s.pool]\n\
             max_rsss='1GiB'\n[servers.s.limits]\nharakirri='1h'\n",
            &[
                ("4 tenants.\"b c\"", "is not a name"),
                ("5 servers.-x", "is not a name"),
                ("9 servers.s.argz", "(did you mean \"args\"?)"),
                ("10 servers.s.env.\"(not shown: it may be a secret)\"", "not the name of a variable"),
                ("11 servers.s.pass_env[0]", "not the name of a variable"),
                ("12 servers.s.isolation", "none of \"session\", \"principal\", \"tenant\", \"shared\""),
                ("14 servers.s.pool.max_rsss", "(did you mean \"max_rss\"?)"),
                ("16 servers.s.limits.harakirri", "(did you mean \"harakiri\"?)"),
            ],
        ),
        (
            "a server without command, a variable from two places",
            "[auth]\nanonymous='a'\n[tenants.a]\n[servers.s]\npass_env=['X']\nenv.X='1'\nenv.Y='file:nowhere'\n",
            &[
                ("4 servers.s.command", "missing"),
                ("6 servers.s.env.X", "in pass_env too"),
                ("7 servers.s.env.Y", "cannot be read"),
            ],
        ),
    ]);
}

#[test]
fn listeners_and_web_names() {
    check(&[
        (
            "anonymous beyond loopback",
            "[http]\nlisten='0.0.0.0:8081'\n[auth]\nanonymous='a'\n[tenants.a]\n[servers.s]\ncommand='sh'\n",
            &[("4 auth.anonymous", "anybody who reaches 0.0.0.0:8081 could call")],
        ),
        (
            "one port for both listeners",
            "[auth]\nanonymous='a'\n[tenants.a]\n[servers.s]\ncommand='sh'\n[admin]\nlisten='0.0.0.0:8081'\n",
            &[("7 admin.listen", "taken by http.listen (127.0.0.1:8081)")],
        ),
        (
            "URLs, origins and the log",
            "[auth]\nanonymous='a'\n[tenants.a]\n[servers.s]\ncommand='sh'\n[http]\npublic_url='mcp.example.com'\n\
             allowed_origins=['https://x.example/', 'app']\nallowed_hosts=['a:80', 'a..b', '[::1]:80', 'u@a', '1.2.3.4/8', '']\n[admin]\nlisten='no'\n\
             [log]\nformat='xml'\nfilter='sluice=loud'\n",
            &[
                ("7 http.public_url", "not an http or https URL"),
                ("8 http.allowed_origins[0]", "not an origin"),
                ("8 http.allowed_origins[1]", "not an origin"),
                ("9 http.allowed_hosts[0]", "without scheme, port and path"),
                ("9 http.allowed_hosts[1]", "not a host name"),
                ("9 http.allowed_hosts[2]", "not a host name"),
                ("9 http.allowed_hosts[3]", "not a host name"),
                ("9 http.allowed_hosts[4]", "not a host name"),
                ("9 http.allowed_hosts[5]", "not a host name"),
                ("11 admin.listen", "neither \"off\" nor"),
                ("13 log.format", "none of \"auto\", \"human\", \"json\""),
                ("14 log.filter", "not a log filter"),
            ],
        ),
    ]);
}

#[test]
fn credentials() {
    const REST: &str = "[tenants.a]\n[servers.s]\ncommand='sh'\n";
    let broken = |auth: &str, expected: &[(&str, &str)]| {
        let problems = load(&format!("{auth}{REST}")).unwrap_err();
        let places: Vec<String> = problems.list().iter().map(place).collect();
        assert_eq!(places, expected.iter().map(|(place, _)| *place).collect::<Vec<_>>(), "{problems}");
        for (problem, (_, part)) in problems.list().iter().zip(expected) {
            assert!(problem.text.contains(part), "{part:?} is not in: {problem}");
        }
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
    };
    broken("[auth]\n", &[("1 auth", "nobody could call")]);
    broken(
        "[[auth.keys]]\n[[auth.keys]]\nprefix='a_b'\n",
        &[
            ("1 auth.keys[0].prefix", "missing"),
            ("1 auth.keys[0].sha256", "missing"),
            ("1 auth.keys[0].tenant", "missing"),
            ("2 auth.keys[1].sha256", "missing"),
            ("2 auth.keys[1].tenant", "missing"),
            ("3 auth.keys[1].prefix", "not a key's prefix"),
        ],
    );
    broken(
        "[auth.jwt]\n",
        &[
            ("1 auth.jwt", "there is no key"),
            ("1 auth.jwt.algorithms", "no algorithm"),
            ("1 auth.jwt.audiences", "not made for this gateway"),
            ("1 auth.jwt.issuers", "list what your tokens carry"),
        ],
    );
    const CLAIMS: &str = "issuers=['i']\naudiences=['a']\n";
    broken(
        &format!("[auth.jwt]\nalgorithms=['HS256','none','RS256']\nsecret='hunter2'\npem_file='x'\n{CLAIMS}"),
        &[("2 auth.jwt.algorithms[1]", "\"none\" is not supported"), ("4 auth.jwt.pem_file", "a key already (secret)")],
    );
    broken(
        &format!("[auth.jwt]\nalgorithms=['HS512','ES256']\nsecret='hunter2'\n{CLAIMS}leeway='1h'\n"),
        &[
            ("2 auth.jwt.algorithms", "ES256 needs a public key"),
            ("3 auth.jwt.secret", "at least 64 random ones"),
            ("6 auth.jwt.leeway", "out of bounds"),
        ],
    );
    broken(
        &format!("[auth.jwt]\nalgorithms=['HS256','RS256']\njwks_url='https://i.example/k'\n{CLAIMS}"),
        &[("2 auth.jwt.algorithms", "would let anyone sign")],
    );
    broken(
        &format!(
            "[auth.jwt]\nalgorithms=['RS256']\njwks_url='http://i.example/k'\n{CLAIMS}authorization_servers=['http://i.example']\n"
        ),
        &[("3 auth.jwt.jwks_url", "use https"), ("6 auth.jwt.authorization_servers[0]", "not an https URL")],
    );
    for (key, file) in [("pem_file", "nowhere.pem"), ("jwks_file", "nowhere.json"), ("secret_file", "nowhere")] {
        broken(
            &format!("[auth.jwt]\nalgorithms=['RS256']\n{key}='{file}'\n{CLAIMS}"),
            &[(&format!("3 auth.jwt.{key}"), "cannot be read")],
        );
    }
}

#[test]
fn what_is_said_of_a_tool_is_checked() {
    let text = format!(
        "{LEAST}[servers.s.tools.a]\ntimeout = 'off'\nresend = 'never'\n[servers.s.tools.b]\ntimeot = '1s'\n\
         [servers.s.restart]\nresend = 'always'\n[limits]\nping_interval = 'never'\nping_timeout = 'off'\n"
    );
    let problems = load(&text).unwrap_err();
    let places: Vec<String> = problems.list().iter().map(place).collect();
    let wanted = [
        "14 limits.ping_interval",
        "15 limits.ping_timeout",
        "12 servers.s.restart.resend",
        "7 servers.s.tools.a.timeout",
        "8 servers.s.tools.a.resend",
        "10 servers.s.tools.b.timeot",
    ];
    assert_eq!(
        places.iter().collect::<std::collections::BTreeSet<_>>(),
        wanted.map(str::to_owned).iter().collect(),
        "{problems}"
    );
    assert!(problems.to_string().contains("did you mean \"timeout\""), "{problems}");
}

#[test]
fn pools_that_contradict_themselves() {
    let pool = |text: &str| {
        let text = format!("[auth]\nanonymous='a'\n[tenants.a]\n[servers.s]\ncommand='sh'\n[servers.s.pool]\n{text}\n");
        match load(&text) {
            Ok(_) => Vec::new(),
            Err(problems) => {
                problems.list().iter().map(|problem| format!("{}: {}", place(problem), problem.text)).collect()
            }
        }
    };
    for (text, wanted) in [
        (
            "mode='dynamic'\nmax_children=2\nmax_spare=50",
            "9 servers.s.pool.max_spare: 50 is more than max_children (2); lower it, or raise max_children",
        ),
        ("mode='dynamic'\nmax_children=2\nmin_spare=3", "9 servers.s.pool.min_spare: 3 is more than max_children (2)"),
        (
            "mode='dynamic'\nmin_spare=5",
            "8 servers.s.pool.min_spare: 5 is more than max_spare (3 by default); lower it, or raise max_spare",
        ),
        (
            "mode='dynamic'\nmax_spare=0",
            "8 servers.s.pool.max_spare: 0 is less than min_spare (1 by default); raise it, or lower min_spare",
        ),
        (
            "mode='static'",
            "7 servers.s.pool.mode: starts as many as max_children at once, which is 1000 by default; set max_children",
        ),
        ("replicas=2", "7 servers.s.pool.replicas: only isolation = \"shared\""),
    ] {
        let found = pool(text);
        assert!(found.len() == 1 && found[0].starts_with(wanted), "{text}: {found:?}");
    }
    // The default of max_spare is no contradiction: it is not reached.
    for text in ["mode='dynamic'\nmax_children=2", "mode='static'\nmax_children=2"] {
        assert_eq!(pool(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_state_directory_that_cannot_be_made_is_said() {
    for (path, why) in [
        ("/etc/passwd", "/etc/passwd is no folder"),
        ("/etc/passwd/state", "/etc/passwd is no folder"),
        ("/proc/nope", "/proc is the kernel's"),
        ("/sys/nope/deeper", "/sys is the kernel's"),
    ] {
        let problems = load(&format!("state_dir = {path:?}\n{LEAST}")).unwrap_err();
        assert_eq!(problems.list().iter().map(place).collect::<Vec<_>>(), ["1 state_dir"]);
        let text = &problems.list()[0].text;
        assert!(text.contains(why) && text.ends_with("name a folder of the gateway's own"), "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b");
    valid(&format!("state_dir = {path:?}\n{LEAST}"));
    assert!(!folder.path().join("a").exists(), "nothing is made");
}
