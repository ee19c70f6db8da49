//! Values and keys that stand elsewhere: variables, files, PEM, JWK sets.

use super::*;
use crate::config::{CHILD_PATH, JwtKey};

const CLAIMS: &str = "issuers=['i']\naudiences=['a']\n[tenants.a]\n[servers.s]\ncommand='sh'\n";
const ED25519: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

#[test]
fn a_child_gets_what_is_listed_a_path_and_nothing_else() {
    let files = Files::new();
    files.write("token", "from a file\r\n");
    let text = format!(
        "{LEAST}pass_env = ['PASSED', 'ABSENT']\n[servers.s.env]\nGITHUB_TOKEN = 'env:REAL'\nCamelCase = 'kept'\n\
         FILE = 'file:token'\nLITERAL = 'literal:env:REAL'\n"
    );
    let environment = environment(&[("PATH", "/theirs"), ("REAL", "s3cret"), ("PASSED", "p"), ("OTHER", "never")]);
    let loaded = files.load(&text, &environment).unwrap();
    let expected = [
        ("CamelCase", "kept"),
        ("FILE", "from a file"),
        ("GITHUB_TOKEN", "s3cret"),
        ("LITERAL", "env:REAL"),
        ("PASSED", "p"),
        ("PATH", CHILD_PATH),
    ];
    assert_eq!(exposed(&loaded.config.servers["s"]), expected);
    let warnings: Vec<String> = loaded.warnings.iter().map(place).collect();
    assert_eq!(warnings, ["6 servers.s.pass_env[1]"]);
    assert!(!format!("{:?}", loaded.config).contains("s3cret"));
}

#[test]
fn a_path_that_is_given_replaces_the_default() {
    for given in ["pass_env = ['PATH']", "env = { PATH = '/theirs' }", "env = { PATH = 'env:PATH' }"] {
        let loaded = Files::new().load(&format!("{LEAST}{given}\n"), &environment(&[("PATH", "/theirs")])).unwrap();
        assert_eq!(exposed(&loaded.config.servers["s"]), [("PATH", "/theirs")], "{given}");
    }
}

#[test]
fn a_command_that_is_not_found_and_a_secret_in_the_file_are_warnings() {
    let text = "[auth]\nanonymous='a'\n[tenants.a]\n[servers.s]\ncommand='no-such-program'\nenv.API_TOKEN='hunter2'\nenv.PATH='/bin'\n\
                [servers.self]\ncommand='sluice'\n";
    let loaded = load(text).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(place).collect();
    assert_eq!(warnings, ["5 servers.s.command", "6 servers.s.env.API_TOKEN"]);
    assert!(loaded.warnings.iter().all(|warning| !warning.text.contains("hunter2")));
    assert_eq!(loaded.config.servers["self"].program(), std::env::current_exe().ok());
}

#[test]
fn a_command_that_cannot_be_executed_is_a_warning_that_says_so() {
    let files = Files::new();
    files.write("server.py", "print()\n");
    let text = "[auth]\nanonymous='a'\n[tenants.a]\n[servers.s]\ncommand='./server.py'\n";
    let loaded = files.load(text, &Environment::default()).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].text.contains("is not an executable file"), "{}", loaded.warnings[0]);
}

#[test]
fn relative_paths_start_from_the_folder_of_the_file() {
    let files = Files::new();
    let program = files.write("server.sh", "#!/bin/sh\n");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(files.folder.path().join("work")).unwrap();
    let text = "[auth]\nanonymous='a'\n[tenants.a]\n[servers.s]\ncommand='./server.sh'\ncwd='work'\n";
    let loaded = files.load(text, &Environment::default()).unwrap();
    assert_eq!(loaded.warnings, []);
    let server = &loaded.config.servers["s"];
    assert_eq!(server.cwd.as_deref(), Some(files.folder.path().join("work").as_path()));
    assert_eq!(server.program().unwrap().canonicalize().unwrap(), program.canonicalize().unwrap());
}

#[test]
fn a_jwt_secret_comes_from_a_variable_a_file_or_with_a_warning_from_the_text() {
    let secret = "0123456789abcdef0123456789abcdef";
    let files = Files::new();
    files.write("secret", &format!("{secret}\n"));
    let environment = environment(&[("JWT", secret)]);
    for (source, warnings) in [
        ("secret = 'env:JWT'".to_owned(), 0),
        ("secret = 'file:secret'".to_owned(), 0),
        ("secret_file = 'secret'".to_owned(), 0),
        (format!("secret = '{secret}'"), 1),
    ] {
        let loaded =
            files.load(&format!("[auth.jwt]\nalgorithms=['HS256']\n{source}\n{CLAIMS}"), &environment).unwrap();
        let Some(JwtKey::Secret(found)) = loaded.config.auth.jwt.as_ref().map(|jwt| &jwt.key) else {
            panic!("no secret")
        };
        assert_eq!(found.expose_secret(), secret, "{source}");
        assert_eq!(loaded.warnings.len(), warnings, "{source}");
    }
}

#[test]
fn a_public_key_must_fit_the_algorithms() {
    let files = Files::new();
    files.write("ed.pem", ED25519);
    files.write("private.pem", &ED25519.replace("PUBLIC", "PRIVATE"));
    files.write("not.pem", "hello");
    let jwt = |algorithm: &str, file: &str| {
        files.load(
            &format!("[auth.jwt]\nalgorithms=['{algorithm}']\npem_file='{file}'\n{CLAIMS}"),
            &Environment::default(),
        )
    };
    jwt("EdDSA", "ed.pem").unwrap();
    for (algorithm, file, part) in [
        ("ES256", "ed.pem", "no EC public key in PEM, which ES256 needs"),
        ("RS256", "ed.pem", "no RSA public key"),
        ("EdDSA", "not.pem", "no Ed25519 public key"),
        ("EdDSA", "private.pem", "holds a private key"),
    ] {
        let problems = jwt(algorithm, file).unwrap_err();
        assert_eq!(problems.list().iter().map(place).collect::<Vec<_>>(), ["3 auth.jwt.pem_file"]);
        assert!(problems.to_string().contains(part), "{problems}");
    }
}

#[test]
fn a_jwk_set_must_be_one() {
    let files = Files::new();
    files.write(
        "good.json",
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"}]}"#,
    );
    files.write("empty.json", r#"{"keys":[]}"#);
    files.write("bad.json", "{\n\"keys\": 1}");
    let jwt = |source: &str| {
        files.load(&format!("[auth.jwt]\nalgorithms=['EdDSA','RS256']\n{source}\n{CLAIMS}"), &Environment::default())
    };
    jwt("jwks_file='good.json'").unwrap();
    jwt("jwks_url='https://issuer.example.com/jwks'").unwrap();
    jwt("jwks_url='http://[::1]:9/jwks'").unwrap();
    for (source, part) in [("empty.json", "holds no key"), ("bad.json", "not a JWK set (see its line 2)")] {
        let problems = jwt(&format!("jwks_file='{source}'")).unwrap_err();
        assert_eq!(problems.list().iter().map(place).collect::<Vec<_>>(), ["3 auth.jwt.jwks_file"]);
        assert!(problems.to_string().contains(part), "{problems}");
    }
}

#[test]
fn what_is_wrong_with_a_command_is_said_of_a_path_and_of_one_with_arguments() {
    for (command, says) in [
        ("no-such-program", "is not found in the child's PATH; install it"),
        ("/no/such/program", "there is no file \"/no/such/program\"; correct the path"),
        ("sluice stdio-demo", "its arguments belong into args"),
        ("/bin/sh -c", "its arguments belong into args"),
    ] {
        let text = format!("[auth]\nanonymous='a'\n[tenants.a]\n[servers.s]\ncommand='{command}'\n");
        let warnings = load(&text).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].text.contains(says), "{command}: {warnings:?}");
    }
}

#[test]
fn a_chosen_key_without_a_tenant_is_the_problem_where_nobody_else_could_call() {
    const KEY: &str = "slk_local_0123456789abcdef0123456789abcdef";
    let text = |auth: &str| format!("{auth}[tenants.a]\n[tenants.b]\n[servers.s]\ncommand='sh'\n");
    let load =
        |auth, tenant| Files::new().load(&text(auth), &environment(&[("SLUICE_KEY", KEY), ("SLUICE_TENANT", tenant)]));
    let several = Files::new().load(&text(""), &environment(&[("SLUICE_KEY", KEY)])).unwrap_err().to_string();
    assert!(
        several.contains("could call: the key in SLUICE_KEY is not used: there are several tenants; set SLUICE_TENANT")
    );
    assert!(load("", "c").unwrap_err().to_string().contains("SLUICE_TENANT names no tenant"));
    assert_eq!(load("", "b").unwrap().config.auth.keys.len(), 1);
    let warnings = load("[auth]\nanonymous='a'\n", "c").unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.text.contains("the key in SLUICE_KEY is not used")), "{warnings:?}");
}

#[test]
fn warnings_are_there_beside_problems() {
    let problems = load(&format!("{LEAST}args=1\nenv.API_TOKEN='hunter2'\n")).unwrap_err();
    assert_eq!(problems.list().iter().map(place).collect::<Vec<_>>(), ["6 servers.s.args"]);
    assert_eq!(problems.warnings().iter().map(place).collect::<Vec<_>>(), ["7 servers.s.env.API_TOKEN"]);
}

#[test]
fn a_public_url_is_a_base_with_one_scheme() {
    let load = |url: &str| load(&format!("{LEAST}[http]\ntrusted_proxies=['127.0.0.1']\npublic_url='{url}'\n"));
    assert!(load("https://https://x.example").unwrap_err().to_string().contains("has a scheme twice"));
    for (url, warnings) in [
        ("https://x.example/gateway", 0),
        ("https://x.example/mcp-gateway", 0),
        ("https://x.example/mcp/", 1),
        ("https://x.example/a/sse", 1),
        ("https://x.example/servers/s/mcp", 1),
        ("https://x.example/servers/s", 1),
    ] {
        assert_eq!(load(url).unwrap().warnings.len(), warnings, "{url}");
    }
}
