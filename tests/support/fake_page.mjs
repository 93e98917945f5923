// A page without a browser: the parts of the DOM that Portico's scripts use.
import { readFileSync } from 'node:fs';
import vm from 'node:vm';

const VOID = new Set(['input', 'br', 'img']);
const camel = (name) => name.replace(/-(\w)/g, (_all, letter) => letter.toUpperCase());
const hyphens = (name) => name.replace(/[A-Z]/g, (letter) => '-' + letter.toLowerCase());

export class Events {
    listeners = {};
    addEventListener(kind, act) { (this.listeners[kind] ??= []).push(act); }
    // Resolves when every listener has finished.
    async fire(kind, more = {}) {
        const event = { type: kind, target: this, prevented: false, preventDefault() { event.prevented = true; }, ...more };
        for (let at = this; at; at = at.parent) {
            for (const act of at.listeners[kind] ?? []) { await act(event); }
        }
        return event;
    }
}

export class Element extends Events {
    parent = null;
    children = []; // Elements and texts.
    constructor(tag, attributes = {}) {
        super();
        this.tag = tag;
        this.attributes = attributes;
        this.value = attributes.value ?? '';
        this.checked = this.defaultChecked = 'checked' in attributes;
    }
    get elements_() { return this.children.filter((one) => one instanceof Element); }
    *walk() { for (const one of this.elements_) { yield one; yield* one.walk(); } }
    getAttribute(name) { return this.attributes[name] ?? null; }
    setAttribute(name, value) { this.attributes[name] = String(value); }
    removeAttribute(name) { delete this.attributes[name]; }
    get dataset() {
        return new Proxy(this, { get: (one, name) => one.attributes['data-' + hyphens(name)] });
    }
    get classList() {
        const words = () => (this.attributes.class ?? '').split(' ').filter(Boolean);
        const toggle = (name, on) => {
            this.attributes.class = [...words().filter((one) => one !== name), ...(on ? [name] : [])].join(' ');
        };
        return { toggle, add: (name) => toggle(name, true), contains: (name) => words().includes(name) };
    }
    get textContent() {
        return this.children.map((one) => one instanceof Element ? one.textContent : one).join('');
    }
    set textContent(text) { this.replaceChildren(String(text)); }
    get childElementCount() { return this.elements_.length; }
    get parentElement() { return this.parent; }
    get cells() { return this.elements_; }
    get cellIndex() { return this.parent.elements_.indexOf(this); }
    get nextElementSibling() { return this.parent.elements_[this.cellIndex + 1] ?? null; }
    get previousElementSibling() { return this.parent.elements_[this.cellIndex - 1] ?? null; }
    get elements() {
        const named = [...this.walk()].filter((one) => 'name' in one.attributes);
        return Object.fromEntries(named.map((one) => [one.attributes.name, one]));
    }
    put(at, nodes) {
        for (const one of nodes) { if (one instanceof Element) { one.remove(); one.parent = this; } }
        this.children.splice(at, 0, ...nodes);
    }
    append(...nodes) { this.put(this.children.length, nodes); }
    prepend(...nodes) { this.put(0, nodes); }
    after(...nodes) { this.parent.put(this.parent.children.indexOf(this) + 1, nodes); }
    before(...nodes) { this.parent.put(this.parent.children.indexOf(this), nodes); }
    replaceChildren(...nodes) { this.children = []; this.append(...nodes); }
    remove() {
        if (this.parent) { this.parent.children = this.parent.children.filter((one) => one !== this); }
        this.parent = null;
    }
    contains(other) { return other === this || [...this.walk()].includes(other); }
    matches(selector) {
        return selector.split(',').some((one) => this.fits(one.trim().split(/\s+/)));
    }
    fits(words) {
        const [last, ...before] = [...words].reverse();
        if (!this.fitsWord(last)) { return false; }
        if (!before.length) { return true; }
        const rest = before.reverse();
        for (let at = this.parent; at; at = at.parent) { if (at.fits(rest)) { return true; } }
        return false;
    }
    fitsWord(word) {
        return [...word.matchAll(/\[([\w-]+)(?:=([\w-]+))?\]|#([\w-]+)|\.([\w-]+)|^(\w+)/g)].every(
            ([, name, value, id, kind, tag]) => tag ? tag === this.tag : id ? id === this.id
                : kind ? this.classList.contains(kind)
                    : name in this.attributes && (value === undefined || value === this.attributes[name]));
    }
    querySelectorAll(selector) { return [...this.walk()].filter((one) => one.matches(selector)); }
    querySelector(selector) { return this.querySelectorAll(selector)[0] ?? null; }
    getElementById(id) { return [...this.walk()].find((one) => one.id === id) ?? null; }
    closest(selector) {
        for (let at = this; at; at = at.parent) { if (at.matches(selector)) { return at; } }
        return null;
    }
    done = []; // Names of the methods below that were called.
    setCustomValidity(text) { this.problem = text; }
}
for (const name of ['id', 'name', 'type', 'class', 'href', 'action', 'placeholder', 'hidden', 'required', 'disabled', 'open']) {
    const on = ['hidden', 'required', 'disabled', 'open'].includes(name);
    Object.defineProperty(Element.prototype, name === 'class' ? 'className' : name, {
        get() { return on ? name in this.attributes : this.attributes[name] ?? ''; },
        set(value) {
            if (on && !value) { delete this.attributes[name]; } else { this.attributes[name] = on ? '' : value; }
        },
    });
}
for (const name of ['focus', 'select', 'submit', 'reportValidity', 'scrollIntoView']) {
    Element.prototype[name] = function () { this.done.push(name); };
}
Element.prototype.showModal = function () { this.open = true; };
Element.prototype.close = function () { this.open = false; };

export function parsed(html) {
    const page = new Element('document');
    let at = page;
    for (const [, end, tag, words, text] of html.matchAll(/<(\/?)(\w+)([^>]*)>|([^<]+)/g)) {
        if (text !== undefined) {
            at.append(text);
        } else if (end) {
            at = at.parent;
        } else {
            const found = [...words.matchAll(/([\w-]+)(?:="([^"]*)")?/g)].map(([, name, value]) => [name, value ?? '']);
            const made = new Element(tag, Object.fromEntries(found));
            at.append(made);
            if (!VOID.has(tag)) { at = made; }
        }
    }
    page.body = page.querySelector('body') ?? page;
    return page;
}

// Runs the script in a page, which `ready` may change before. `answers`: what fetch
// returns, one after the other.
export function run(script, html, { answers = [], ready = () => {}, ...more } = {}) {
    const document = parsed(html);
    ready(document);
    const sent = [], timers = [];
    document.createElement = (tag) => new Element(tag);
    document.cookie = '';
    document.execCommand = (what) => document.body.done.push(what);
    const fetch = async (url, options = {}) => {
        sent.push({ url: String(url), ...options });
        const { status = 200, text = '', json } = answers.shift() ?? {};
        const body = json === undefined ? text : JSON.stringify(json);
        return { status, ok: status < 300, statusText: `status ${status}`, text: async () => body, json: async () => JSON.parse(body) };
    };
    const context = {
        document, fetch, sent, timers, URL, URLSearchParams, AbortController, TextEncoder, btoa, FormData,
        Date, Intl, navigator: {}, window: new Events(), location: { pathname: '/page/', search: '', protocol: 'https:' },
        HTMLInputElement: Element, DOMParser: class { parseFromString(text) { return parsed(text); } },
        setTimeout: (act, wait) => timers.push({ act, wait }), clearTimeout: (number) => { delete timers[number - 1]; },
        ...more,
    };
    vm.runInNewContext(readFileSync(new URL(`../../${script}`, import.meta.url), 'utf8'), context);
    return context;
}

// Lets pending promises finish.
export const settled = () => new Promise((done) => setImmediate(done));
