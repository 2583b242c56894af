// @xmpp/client in a process of its own. Reads one job (JSON) on stdin, plays it, prints one outcome on stdout; the
// shapes are those of slix_driver.py. The CA to trust comes in NODE_EXTRA_CA_CERTS, which Node reads once, as it starts.

import crypto from "node:crypto";
import dns from "node:dns";

process.on("unhandledRejection", () => {}); // a refused login rejects two promises, and start() awaits one
globalThis.crypto ??= crypto.webcrypto; // Node 18, Debian 12's, has it under this name only

const { client, xml } = await import("@xmpp/client");

const STEP_MS_MAX = 15_000;

// The certificate is checked against the host connected to, so that has to be the domain; its address is ours.
dns.lookup = (name, options, callback) => {
  const answer = options.all ? [{ address: "127.0.0.1", family: 4 }] : "127.0.0.1";
  callback(null, answer, 4);
};

class Peer {
  constructor(job, index) {
    const { user, password } = job.clients[index];
    const scheme = job.mode === "direct-tls" ? "xmpps" : "xmpp";
    this.login = { mechanisms: [], failures: [] };
    this.secrets = new Set();
    this.inbox = [];
    this.waiting = [];
    this.token = null;
    this.xmpp = client({
      service: `${scheme}://${job.domain}:${job.port}`,
      domain: job.domain,
      resource: `xmppjs-${index}`,
      username: user,
      password,
      userAgent: xml("user-agent", { id: job.user_agent ?? "d4565fa7-4d72-4749-b3d3-740edbf87770" }, [
        xml("software", {}, "xmppjs"),
      ]),
    });
    this.xmpp.reconnect.stop();
    // 0.14 listens for the server's header only once its own has been flushed, and misses one that is faster.
    this.xmpp.write = async (text) => void this.xmpp.socket.write(text);
    this.xmpp.on("error", () => {});
    this.xmpp.on("send", (element) => this.onElement(element, true));
    this.xmpp.on("element", (element) => this.onElement(element, false));
    this.xmpp.on("stanza", (stanza) => {
      const body = stanza.is("message") && stanza.getChildText("body");
      if (body) (this.waiting.shift() ?? ((text) => this.inbox.push(text)))(body);
    });
  }

  onElement(element, sent) {
    const name = element.name;
    if (sent && (name === "auth" || name === "authenticate")) this.login.mechanisms.push(element.attrs.mechanism);
    if (!sent && name === "failure") {
      const condition = element.getChildElements().find((child) => child.name !== "text");
      this.login.failures.push(condition?.name ?? null);
    }
    if (["auth", "response", "challenge", "success"].includes(name) && element.text()) this.secrets.add(element.text());
    for (const child of ["initial-response", "additional-data"]) {
      const text = element.getChildText?.(child);
      if (text) this.secrets.add(text);
    }
    if (name === "enabled" && element.attrs.id) this.secrets.add(element.attrs.id);
    const token = element.getChild?.("token", "urn:xmpp:fast:0");
    if (token) {
      this.secrets.add(token.attrs.token);
      this.token = { token: token.attrs.token, expiry: token.attrs.expiry, mechanism: this.xmpp.fast.mechanism };
    }
  }

  async open() {
    try {
      return { end: "session", jid: String(await within(this.xmpp.start())) };
    } catch (error) {
      return { end: error.name, condition: error.condition ?? error.code ?? error.message, jid: null };
    }
  }

  async receive() {
    return this.inbox.shift() ?? within(new Promise((resolve) => this.waiting.push(resolve)));
  }

  async leave() {
    try {
      await within(this.xmpp.stop());
    } catch (error) {
      return error.name;
    }
    return this.xmpp.status;
  }
}

function within(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("timeout")), STEP_MS_MAX);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const SCENARIOS = {
  async login(job, [peer]) {
    const opened = await peer.open();
    return { ...opened, left: await peer.leave() };
  },

  async messages(job, [one, other]) {
    const opened = [await one.open(), await other.open()];
    const presence = xml("presence");
    await Promise.all([one.xmpp.send(presence), other.xmpp.send(presence)]);
    const received = [];
    for (const [from, to, body] of [
      [one, other, job.bodies[0]],
      [other, one, job.bodies[1]],
    ]) {
      await from.xmpp.send(xml("message", { to: String(to.xmpp.jid), type: "chat" }, xml("body", {}, body)));
      received.push((await to.receive()) === body);
    }
    return { opened, received, left: [await one.leave(), await other.leave()] };
  },

  // Ask the server, then somebody who does not exist.
  async disco(job, [peer]) {
    const opened = await peer.open();
    const answers = [];
    for (const to of [job.domain, `nobody@${job.domain}/gone`]) {
      const query = xml("iq", { type: "get", to }, xml("query", "http://jabber.org/protocol/disco#info"));
      try {
        answers.push((await peer.xmpp.iqCaller.request(query, STEP_MS_MAX)).attrs.type);
      } catch (error) {
        answers.push(error.condition ?? error.name);
      }
    }
    return { ...opened, answers, left: await peer.leave() };
  },

  // A first login that asks for a token, and a second one with it (XEP-0484).
  async fast(job, [peer, again]) {
    const first = await peer.open();
    const left = [await peer.leave()];
    if (peer.token) await again.xmpp.fast.saveToken(peer.token);
    const second = await again.open();
    left.push(await again.leave());
    return { first, token: peer.token !== null, second, left };
  },
};

const CLIENTS = { login: 1, disco: 1, messages: 2, fast: 2 };

async function main() {
  let text = "";
  for await (const piece of process.stdin) text += piece;
  const job = JSON.parse(text);
  const peers = Array.from({ length: CLIENTS[job.scenario] }, (_, index) => new Peer(job, index));
  let outcome;
  try {
    const final = await SCENARIOS[job.scenario](job, peers);
    outcome = {
      final,
      logins: peers.map((peer) => peer.login),
      secrets: [...new Set(peers.flatMap((peer) => [...peer.secrets]))].sort(),
    };
  } catch (error) {
    outcome = { crashed: error.stack };
  }
  process.stdout.write(JSON.stringify(outcome) + "\n", () => process.exit(0));
}

await main();
