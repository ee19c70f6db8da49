//! The `mcpServers` JSON of desktop clients.

use super::*;
use crate::config::CHILD_PATH;

fn load(text: &str) -> Result<Loaded, Problems> {
    let environment =
        environment(&[("PATH", "/usr/bin:/bin"), ("HOME", "/home/me"), ("TOKEN", "t0ken"), ("OTHER", "never")]);
    Config::from_mcp_servers(&Files::new().write("mcp.json", text), &environment)
}

#[test]
fn a_file_of_a_desktop_client_is_taken_as_it_is() {
    let loaded = load(
        r#"{
  "theme": "dark",
  "mcpServers": {
    "files": {
      "type": "stdio", "command": "sh", "args": ["-c", "echo ${#x} $HOME ${TOKEN}", "${NOT_SET:-fallback}"],
      "env": {"Key_A": "env:OTHER", "B": "${env:TOKEN}!", "N": 5, "T": true, "NONE": null},
      "alwaysAllow": ["read"], "autoApprove": [], "timeout": 60
    }
  }
}"#,
    )
    .unwrap();
    assert_eq!(loaded.warnings, []);
    let server = &loaded.config.servers["files"];
    assert_eq!((server.command.as_str(), server.cwd.as_deref()), ("sh", None));
    assert_eq!(server.args, ["-c", "echo ${#x} $HOME t0ken", "fallback"]);
    let expected = [
        ("B", "t0ken!"),
        ("HOME", "/home/me"),
        ("Key_A", "env:OTHER"),
        ("N", "5"),
        ("PATH", "/usr/bin:/bin"),
        ("T", "true"),
    ];
    assert_eq!(exposed(server), expected);
    assert_eq!(loaded.config.default_server, "files".parse().ok());
    let auth = &loaded.config.auth;
    assert!(auth.anonymous.is_none() && auth.keys.is_empty() && auth.jwt.is_none());
}

#[test]
fn vs_code_and_a_byte_order_mark_are_understood() {
    let loaded = load("\u{feff}{\"servers\": {\"a\": {\"command\": \"sh\"}, \"b\": {\"command\": \"sh\", \"env\": {\"PATH\": \"/bin\"}}}}").unwrap();
    assert_eq!(loaded.config.servers.len(), 2);
    assert_eq!(loaded.config.default_server, None);
    assert_eq!(exposed(&loaded.config.servers["b"]), [("HOME", "/home/me"), ("PATH", "/bin")]);
    let path = Files::new();
    let alone = Config::from_mcp_servers(
        &path.write("mcp.json", r#"{"servers":{"a":{"command":"sh"}}}"#),
        &Environment::default(),
    );
    assert_eq!(exposed(&alone.unwrap().config.servers["a"]), [("PATH", CHILD_PATH)]);
}

#[test]
fn names_become_names_for_urls() {
    let long = "x".repeat(80);
    let text = format!(
        r#"{{"mcpServers": {{"My Server!": {{"command": "sh"}}, "my server": {{"command": "sh"}}, "my_ok.1": {{"command": "sh"}},
            "日本": {{"command": "sh"}}, "{long}": {{"command": "sh"}}, "{long}y": {{"command": "sh"}}}}}}"#
    );
    let loaded = load(&text).unwrap();
    let names: Vec<&str> = loaded.config.servers.keys().map(|name| name.as_str()).collect();
    let (cut, second) = ("x".repeat(64), format!("{}-2", "x".repeat(56)));
    assert_eq!(names, ["my-server", "my-server-2", "my_ok.1", "server", &second, &cut]);
    assert_eq!(loaded.warnings.len(), 5, "{:?}", loaded.warnings);
}

#[test]
fn a_given_name_is_not_taken_by_a_made_one() {
    let loaded = load(
        r#"{"mcpServers": {"A B": {"command": "sh", "args": ["made"]}, "a-b": {"command": "sh", "args": ["given"]}}}"#,
    );
    assert_eq!(loaded.unwrap().config.servers["a-b"].args, ["given"]);
}

#[test]
fn what_is_disabled_is_left_out_with_a_warning() {
    let loaded = load(r#"{"mcpServers": {"a": {"command": "sh"}, "b": {"command": "sh", "disabled": true}}}"#).unwrap();
    assert_eq!(loaded.config.servers.len(), 1);
    assert_eq!(loaded.warnings.iter().map(place).collect::<Vec<_>>(), ["1 mcpServers.b"]);
}

#[test]
fn all_problems_are_found_in_one_pass() {
    let problems = load(
        r#"{
  "mcpServers": {
    "remote": { "url": "https://mcp.example.com" },
    "sse": { "type": "sse", "command": "sh" },
    "none": {},
    "wrong": {
      "command": ["sh"], "args": "--token=hunter2",
      "env": {"A": ["hunter2"], "B=": "x", "C": "${NOT_SET}", "D": "${input:key}"}, "cwd": "/nonexistent"
    },
    "list": [],
    "args": { "command": "sh", "args": [1, "${workspaceFolder}"] }
  }
}"#,
    )
    .unwrap_err();
    let places: Vec<String> = problems.list().iter().map(place).collect();
    let expected = [
        "3 mcpServers.remote",
        "4 mcpServers.sse",
        "5 mcpServers.none.command",
        "6 mcpServers.wrong.args",
        "6 mcpServers.wrong.command",
        "6 mcpServers.wrong.cwd",
        "6 mcpServers.wrong.env.A",
        "6 mcpServers.wrong.env.B=",
        "6 mcpServers.wrong.env.C",
        "6 mcpServers.wrong.env.D",
        "10 mcpServers.list",
        "11 mcpServers.args.args[0]",
        "11 mcpServers.args.args[1]",
    ];
    assert_eq!(places, expected, "{problems}");
    let text = problems.to_string();
    assert!(text.contains("a remote server already") && text.contains("known to the editor only"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn what_is_no_such_file_is_one_problem() {
    for (text, place_, part) in [
        ("{\n\"mcpServers\": {,}}", "2 ", "not valid JSON"),
        ("{\n// why\n}", "2 ", "without comments"),
        ("[]", "1 ", "not an object of the right form"),
        ("{}", "1 ", "no \"mcpServers\""),
        (r#"{"mcpServers": {}}"#, "1 ", "no server to start"),
        (r#"{"mcpServers": {"a": {"disabled": true}}}"#, "1 ", "no server to start in it: all are disabled"),
    ] {
        let problems = load(text).unwrap_err();
        assert_eq!(problems.list().iter().map(place).collect::<Vec<_>>(), [place_], "{text}");
        assert!(problems.to_string().contains(part), "{problems}");
    }
}

#[test]
fn variables_override_what_such_a_file_does_not_say() {
    let files = Files::new();
    let path = files.write("mcp.json", r#"{"mcpServers": {"a": {"command": "sh"}}}"#);
    let load = |pairs: &[(&str, &str)]| {
        let path_of_children = [("PATH", "/usr/bin:/bin")];
        Config::from_mcp_servers(&path, &path_of_children.iter().chain(pairs).copied().collect())
    };
    let config = load(&[
        ("SLUICE__HTTP__LISTEN", "127.0.0.1:1"),
        ("SLUICE__ADMIN__LISTEN", "127.0.0.1:2"),
        ("SLUICE__LOG__FORMAT", "json"),
        ("SLUICE__SHUTDOWN__DRAIN_TIMEOUT", "7s"),
        ("SLUICE__SESSIONS__MAX_PER_PRINCIPAL", "3"),
    ]);
    let config = config.unwrap().config;
    assert_eq!((config.http.listen.port(), config.admin.map(|admin| admin.port())), (1, Some(2)));
    assert_eq!((config.drain_timeout.as_secs(), config.sessions.max_per_principal), (7, 3));
    assert_eq!(config.log.format, crate::config::LogFormat::Json);
    assert_eq!(config.own.iter().map(|own| &own.path).collect::<Vec<_>>(), [&path]);
    for (variable, value, expected) in [
        ("SLUICE__ADMIN__LISTNE", "127.0.0.1:2", "SLUICE__ADMIN__LISTNE admin.listne"),
        ("SLUICE__ADMNI__LISTEN", "127.0.0.1:2", "SLUICE__ADMNI__LISTEN "),
        ("SLUICE__ADMIN__LISTEN", "0.0.0.0:8081", "SLUICE__ADMIN__LISTEN admin.listen"),
    ] {
        let problems = load(&[(variable, value)]).unwrap_err();
        assert_eq!(problems.list().iter().map(place).collect::<Vec<_>>(), [expected], "{problems}");
    }
}
