"use strict";
// The page's end of the line to the model, which is in a worker; worker.js has what the two tell each other.
class ModelLink {
  // ready: called when the model can be asked. failed: called with a message when it cannot any more.
  constructor(script, model, { ready, failed }) {
    Object.assign(this, { jobs: new Map(), last: 0, broken: null, ready, failed });
    try {
      this.worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
    } catch (error) {
      failed(error.message);
      return;
    }
    this.worker.addEventListener("error", (event) => this.fail(event.message || "it does not start"));
    this.worker.addEventListener("message", (event) => this.hear(event.data));
    this.worker.postMessage({ kind: "load", model });
  }

  fail(message) {
    for (const { reject } of this.jobs.values()) reject(new Error(message));
    this.jobs.clear();
    this.broken = message;
    this.failed(message);
  }

  hear(message) {
    const job = this.jobs.get(message.id);
    if (message.kind === "ready") this.ready(message.info);
    else if (message.id === undefined) this.fail(message.message);
    else if (!job) return;
    else if (message.kind === "text" || message.kind === "scores") job.heard(message);
    else {
      this.jobs.delete(message.id);
      if (message.kind === "done") job.resolve(message); else job.reject(new Error(message.message));
    }
  }

  // Asks for a job: `heard` gets what comes of it, and the promise its end.
  ask(message, heard) {
    if (this.broken !== null) return Promise.reject(new Error(this.broken));
    const id = ++this.last;
    this.worker.postMessage({ ...message, id });
    return new Promise((resolve, reject) => {
      this.jobs.set(id, { heard, resolve, reject });
    });
  }

  // All jobs end with what they have.
  stop() {
    for (const id of this.jobs.keys()) this.worker.postMessage({ kind: "stop", id });
  }
}
