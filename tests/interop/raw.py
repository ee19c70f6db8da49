"""MCP by hand over plain sockets: a client that gives every request the same id, which no SDK does, and hosts do."""

import http.client
import json
import urllib.parse

TIME_LIMIT = 30


class Raw:
    """A session. `ask` gives every message up to the answer, with nothing else in between."""

    def __init__(self, url, key):
        parts = urllib.parse.urlsplit(url)
        self.host, self.target = parts.netloc, parts.path
        self.headers = {"Authorization": f"Bearer {key}", "Accept": "application/json, text/event-stream"}
        self.headers["Content-Type"] = "application/json"
        self.posts = http.client.HTTPConnection(self.host, timeout=TIME_LIMIT)
        self.streaming = None
        self.events = None
        if self.target.endswith("/sse"):
            self.streaming = http.client.HTTPConnection(self.host, timeout=TIME_LIMIT)
            self.streaming.request("GET", self.target, headers={**self.headers, "Accept": "text/event-stream"})
            self.events = events(expect(self.streaming.getresponse(), 200))
            name, endpoint = next(self.events)
            self.target = urllib.parse.urljoin(self.target, endpoint)
            assert name == "endpoint", name

    def initialize(self):
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        answer = self.ask(1, "initialize", hello)[-1]
        assert answer["result"]["serverInfo"]["name"], answer
        self.notify("notifications/initialized")

    def notify(self, method, params=None):
        message = {"jsonrpc": "2.0", "method": method}
        expect(self.post(message if params is None else {**message, "params": params}), 202).read()

    def ask(self, request_id, method, params):
        response = self.post({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        if self.events:
            expect(response, 202).read()
            return list(up_to_answer(self.messages()))
        expect(response, 200)
        if session := response.headers["Mcp-Session-Id"]:
            self.headers["Mcp-Session-Id"] = session
        if response.headers["Content-Type"].startswith("text/event-stream"):
            # The whole body: a stream that went on after the answer would show.
            return [json.loads(data) for _, data in events(response) if data]
        return [json.loads(response.read())]

    def messages(self):
        """What comes on the HTTP+SSE stream, as it comes."""
        return (json.loads(data) for _, data in self.events)

    def post(self, message):
        self.posts.request("POST", self.target, json.dumps(message), self.headers)
        return self.posts.getresponse()

    def close(self):
        if self.streaming:
            self.streaming.close()
        else:
            self.posts.request("DELETE", self.target, headers=self.headers)
            self.posts.getresponse().read()
        self.posts.close()


def expect(response, status):
    assert response.status == status, (response.status, response.read())
    return response


def events(response):
    """The name and the data of each event."""
    name, data = "message", []
    for line in response:
        line = line.decode().rstrip("\r\n")
        if not line and data:
            yield name, "\n".join(data)
            name, data = "message", []
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


def up_to_answer(messages):
    for message in messages:
        yield message
        if "method" not in message:
            return
