/** The page's side of worker.js: asks, and hands on the news and the answers. */

/** A call that was ended by its signal. */
export class Cancelled extends Error {}

/** An error of the engine, with the words it came with. */
export class EngineError extends Error {
  constructor({ name, message }) {
    super(message);
    this.name = name;
  }
}

/** The engine in a thread of its own. */
export class EngineThread {
  #worker;
  #waiting = new Map();
  #number = 0;
  #ready;

  constructor() {
    // A thread that is made from an address has no content security policy but its server's; one that is made from
    // bytes inherits this page's, which keeps it from sending anything anywhere.
    const script = `import ${JSON.stringify(String(new URL("worker.js", import.meta.url)))};`;
    const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    this.#worker = new Worker(address, { type: "module" });
    this.#ready = new Promise((resolve, reject) => {
      this.#worker.onerror = (event) => {
        const failed = new Error(event.message || "the engine's thread could not be started");
        reject(failed);
        for (const { reject: refuse } of this.#waiting.values()) refuse(failed);
      };
      this.#worker.onmessage = ({ data }) => (data.ready ? resolve() : this.#hear(data));
    });
    this.#ready.then(() => URL.revokeObjectURL(address), () => {});
  }

  /** Asks for something; `signal` ends it, `news` hears of its progress. */
  async ask(what, question = {}, { signal, news } = {}) {
    await this.#ready;
    if (signal?.aborted) throw new Cancelled("cancelled");
    const id = ++this.#number;
    const stop = () => this.#worker.postMessage({ id, what: "cancel" });
    signal?.addEventListener("abort", stop);
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting.set(id, { resolve, reject, news });
        this.#worker.postMessage({ id, what, ...question });
      });
    } finally {
      this.#waiting.delete(id);
      signal?.removeEventListener("abort", stop);
    }
  }

  /** Ends the thread and all that it is doing. */
  end() {
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(new Cancelled("cancelled"));
  }

  #hear({ id, answer, error, ...rest }) {
    const call = this.#waiting.get(id);
    if (!call) return;
    if (error) call.reject(error.cancelled ? new Cancelled("cancelled") : new EngineError(error));
    else if (answer !== undefined) call.resolve(answer);
    else call.news?.(rest);
  }
}
