// Calls a tool at /mcp with a token of five minutes for this tool alone.
'use strict';
const form = document.getElementById('try');
const result = document.getElementById('result');
const VERSION = '2026-07-28';
const PREFIX = 'io.modelcontextprotocol/';

for (const input of form.querySelectorAll('input[data-initial]')) {
    if (input.dataset.initial) {
        input.value = JSON.parse(input.dataset.initial);
    }
}

function show(title, text, failed) {
    result.hidden = false;
    result.classList.toggle('failed', failed);
    result.querySelector('h2').textContent = title;
    result.querySelector('pre').textContent = text;
}

// Empty fields are left out, except required texts.
function given() {
    const found = {};
    for (const field of form.querySelectorAll('[data-kind]')) {
        const { value, name, required } = field;
        const kind = field.dataset.kind;
        if (value === '' && !(kind === 'text' && required)) {
            continue;
        }
        field.setCustomValidity('');
        try {
            found[name] = kind === 'json' ? JSON.parse(value) : kind === 'number' ? Number(value) : value;
        } catch (error) {
            field.setCustomValidity(String(error.message));
            field.reportValidity();
            return null;
        }
    }
    return found;
}

async function token() {
    const body = new FormData();
    body.append('tool', form.dataset.tool);
    body.append('csrfmiddlewaretoken', form.elements.csrfmiddlewaretoken.value);
    const answer = await fetch(location.pathname, { method: 'POST', body });
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) {
        throw new Error(found.error || answer.statusText);
    }
    return found.token;
}

// A value that a header cannot carry as it stands is sent as Base64 (SEP-2243).
function headerText(value) {
    const text = String(value);
    if (/^[!-~]([ -~]*[!-~])?$/.test(text) && !/^=\?base64\?.*\?=$/.test(text)) {
        return text;
    }
    const bytes = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte));
    return `=?base64?${btoa(bytes.join(''))}?=`;
}

function mirrored(parameters) {
    const headers = {};
    for (const field of form.querySelectorAll('[data-header]')) {
        const value = parameters[field.name];
        if (value !== undefined && value !== null && typeof value !== 'object') {
            headers[`Mcp-Param-${field.dataset.header}`] = headerText(value);
        }
    }
    return headers;
}

async function call(parameters) {
    const meta = { [`${PREFIX}protocolVersion`]: VERSION, [`${PREFIX}clientCapabilities`]: {} };
    const params = { name: form.dataset.tool, arguments: parameters, _meta: meta };
    const answer = await fetch(new URL(form.dataset.mcp).pathname, {
        method: 'POST',
        credentials: 'omit',
        headers: {
            'Authorization': `Bearer ${await token()}`,
            'Content-Type': 'application/json',
            'Accept': 'application/json, text/event-stream',
            'MCP-Protocol-Version': VERSION,
            'Mcp-Method': 'tools/call',
            'Mcp-Name': form.dataset.tool,
            ...mirrored(parameters),
        },
        body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params }),
    });
    const text = await answer.text();
    const events = text.split('\n').filter((line) => line.startsWith('data:'));
    const messages = (events.length ? events.map((line) => line.slice(5)) : [text]).map((one) => {
        try {
            return JSON.parse(one);
        } catch {
            return { error: { message: `${answer.status} ${one.slice(0, 500)}` } };
        }
    });
    return messages.find((one) => 'result' in one || 'error' in one) || { error: { message: String(answer.status) } };
}

function words(content) {
    return content.map((one) => one.type === 'text' ? one.text : JSON.stringify(one, null, 2)).join('\n');
}

form.addEventListener('input', (event) => event.target.setCustomValidity(''));
form.addEventListener('submit', async function (event) {
    event.preventDefault();
    const parameters = given();
    if (parameters === null) {
        return;
    }
    const button = form.querySelector('button[type=submit]');
    button.disabled = true;
    show(form.dataset.running, '', false);
    try {
        const answer = await call(parameters);
        if (answer.error) {
            show(form.dataset.failed, answer.error.message, true);
        } else if (answer.result.isError) {
            show(form.dataset.refused, words(answer.result.content || []), true);
        } else {
            show(form.dataset.done, words(answer.result.content || [answer.result]), false);
        }
    } catch (error) {
        show(form.dataset.failed, error.message, true);
    } finally {
        button.disabled = false;
    }
});
