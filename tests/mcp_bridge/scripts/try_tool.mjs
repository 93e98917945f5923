import assert from 'node:assert/strict';
import test from 'node:test';
import { run } from '../../support/fake_page.mjs';

const PAGE = `<form id="try" data-mcp="https://portico.example/mcp" data-tool="pay" data-failed="Failed:" data-refused="Refused:" data-done="Result"
 data-running="Calling ..."><input name="csrfmiddlewaretoken" value="csrf">FIELDS<button type="submit"></button></form>
<section id="result" hidden><h2></h2><pre></pre></section>`;
const TOKEN = { json: { token: 'secret' } };
const answer = (result) => ({ json: { jsonrpc: '2.0', id: 1, result } });
const TEXT = answer({ content: [{ type: 'text', text: 'paid' }, { type: 'image', data: 'x' }] });

async function called(fields, answers = [TOKEN, TEXT]) {
    const page = run('mcp_bridge/static/mcp_bridge/try_tool.js', PAGE.replace('FIELDS', fields), { answers: [...answers], location: { pathname: '/portal/tools/' } });
    const [form, result] = ['try', 'result'].map((id) => page.document.getElementById(id));
    const button = form.querySelector('button');
    const event = await form.fire('submit');
    assert.deepEqual([event.prevented, button.disabled], [true, false]);
    const shown = [result.hidden, result.classList.contains('failed'), result.querySelector('h2').textContent, result.querySelector('pre').textContent];
    return { ...page, form, shown, request: page.sent[1] };
}

test('a call gets a token for this tool and sends it to /mcp alone', async () => {
    const { sent, request } = await called('');
    assert.deepEqual([sent[0].url, sent[0].method, Object.fromEntries(sent[0].body)], ['/portal/tools/', 'POST', { tool: 'pay', csrfmiddlewaretoken: 'csrf' }]);
    assert.deepEqual([request.url, request.method, request.credentials], ['/mcp', 'POST', 'omit']);
    assert.deepEqual({ ...request.headers }, {
        'Authorization': 'Bearer secret', 'Content-Type': 'application/json', 'Accept': 'application/json, text/event-stream',
        'MCP-Protocol-Version': '2026-07-28', 'Mcp-Method': 'tools/call', 'Mcp-Name': 'pay' });
    assert.deepEqual(JSON.parse(request.body), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: {
        name: 'pay', arguments: {}, _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} } } });
});

test('fields become arguments of their kinds, and empty ones are left out', async () => {
    const { request } = await called(`<input name="text" data-kind="text" value="7"><input name="number" data-kind="number" value="7">
<input name="json" data-kind="json" value="[7]"><input name="empty" data-kind="text"><input name="needed" data-kind="text" required>
<input name="nothing" data-kind="number" required><input name="given" data-kind="text" data-initial="&quot;" value="x">`.replace('"&quot;"', '"7"'));
    assert.deepEqual(JSON.parse(request.body).params.arguments, { text: '7', number: 7, json: [7], needed: '', given: 7 });
});

test('a value that is not JSON is said at its field, and nothing is sent', async () => {
    const { sent, form } = await called('<input name="json" data-kind="json" value="[">');
    const field = form.elements.json;
    assert.equal(sent.length, 0);
    assert.match(field.problem, /JSON/);
    assert.deepEqual(field.done, ['reportValidity']);
    await form.fire('input', { target: field });
    assert.equal(field.problem, '');
});

for (const [kind, value, sent] of [['text', 'plain text', 'plain text'], ['text', ' space', '=?base64?IHNwYWNl?='], ['text', 'space ', '=?base64?c3BhY2Ug?='],
    ['text', 'é', '=?base64?w6k=?='], ['text', '=?base64?eA==?=', '=?base64?PT9iYXNlNjQ/ZUE9PT89?='], ['number', '7', '7'], ['json', 'true', 'true'],
    ['json', '[7]', undefined], ['json', 'null', undefined], ['text', '', undefined]]) {
    test(`the header of ${kind} ${value} is ${sent}`, async () => {
        const { request } = await called(`<input name="place" data-kind="${kind}" data-header="Place" value="${value}">`);
        assert.equal(request.headers['Mcp-Param-Place'], sent);
    });
}

test('during a call the button is off and the page says so', async () => {
    const { document, form, ...page } = await called('', [TOKEN, TEXT, TOKEN, TEXT]);
    const done = form.fire('submit');
    const result = document.getElementById('result');
    assert.deepEqual([form.querySelector('button').disabled, result.classList.contains('failed')], [true, false]);
    assert.deepEqual(['h2', 'pre'].map((tag) => result.querySelector(tag).textContent), ['Calling ...', '']);
    await done;
    assert.equal(page.sent.length, 4);
});

const event = (data) => `event: message\ndata: ${JSON.stringify(data)}\n\n`;
const failed = (message) => ({ error: { message } });
for (const [name, answers, shown] of [
    ['a result', [TOKEN, TEXT], [false, false, 'Result', 'paid\n{\n  "type": "image",\n  "data": "x"\n}']],
    ['a result without content', [TOKEN, answer({ a: 1 })], [false, false, 'Result', '{\n  "a": 1\n}']],
    ['an error of the tool', [TOKEN, answer({ isError: true, content: [{ type: 'text', text: 'no' }] })], [false, true, 'Refused:', 'no']],
    ['an error', [TOKEN, { json: failed('bad') }], [false, true, 'Failed:', 'bad']],
    ['events', [TOKEN, { text: event({ method: 'notifications/progress' }) + event(failed('late')) }], [false, true, 'Failed:', 'late']],
    ['no JSON', [TOKEN, { status: 502, text: 'x'.repeat(600) }], [false, true, 'Failed:', `502 ${'x'.repeat(500)}`]],
    ['JSON without a result', [TOKEN, { status: 202, json: {} }], [false, true, 'Failed:', '202']],
    ['no token', [{ status: 403, json: { error: 'not yours' } }], [false, true, 'Failed:', 'not yours']],
    ['no token and no reason', [{ status: 500, text: '<p>' }], [false, true, 'Failed:', 'status 500']],
]) {
    test(`it shows ${name}`, async () => assert.deepEqual((await called('', answers)).shown, shown));
}
