import assert from 'node:assert/strict';
import test from 'node:test';
import { run, settled } from '../../support/fake_page.mjs';

test('the line turns to connected in the words of the page', async () => {
    const page = run('mcp_bridge/static/mcp_bridge/connect.js', '<p id="status" class="status" data-since="7">Waiting</p>', {
        answers: [{ status: 500 }, { json: { connected: false } }, { json: { connected: true } }, { text: '<p id="status">Connected.</p>' }],
        location: { pathname: '/portal/connect/' } });
    const status = page.document.getElementById('status');
    for (let tries = 1; tries < 3; tries += 1) {
        await settled();
        assert.deepEqual([page.timers.length, page.timers.at(-1).wait, status.textContent], [tries, 1000, 'Waiting']);
        page.timers.at(-1).act();
    }
    await settled();
    assert.deepEqual(page.sent.map((one) => one.url), [...Array(3).fill('/portal/connect/status?since=7'), '/portal/connect/']);
    assert.deepEqual([status.textContent, status.className, page.timers.length], ['Connected.', 'status connected', 2]);
});

const cell = (more) => `<td><input type="checkbox"${more}></td>`;
const MATRIX = `<form id="matrix-form"><table><tr><td>head</td>${cell(' id="a"')}${cell(' id="b" checked')}</tr>
<tr><td>gap</td><td>none</td>${cell(' id="c"')}</tr><tr><td>last</td>${cell(' id="d"')}${cell(' id="e"')}</tr></table>
<span id="matrix-count" data-one="1 tick changed" data-many="%s ticks changed"></span></form>`;

test('changed ticks are marked and counted', async () => {
    const { document } = run('mcp_bridge/static/mcp_bridge/matrix.js', MATRIX);
    const [form, count] = ['matrix-form', 'matrix-count'].map((id) => document.getElementById(id));
    const found = [count.textContent];
    for (const [id, on] of [['a', true], ['b', false], ['a', false], ['b', true]]) {
        document.getElementById(id).checked = on;
        await form.fire('change');
        found.push(count.textContent + ' ' + document.querySelectorAll('td.changed input').map((one) => one.id));
    }
    assert.deepEqual(found, ['', '1 tick changed a', '2 ticks changed a,b', '1 tick changed b', ' ']);
});

test('ticks that a browser restored are counted at once', () => {
    const { document } = run('mcp_bridge/static/mcp_bridge/matrix.js', MATRIX, { ready: (page) => {
        for (const id of ['a', 'c']) { page.getElementById(id).checked = true; }
    } });
    assert.equal(document.getElementById('matrix-count').textContent, '2 ticks changed');
});

test('arrows move to the next tick, over cells without one', async () => {
    for (const [from, key, to] of [['a', 'ArrowRight', 'b'], ['b', 'ArrowLeft', 'a'], ['a', 'ArrowDown', 'd'], ['b', 'ArrowDown', 'c'],
        ['c', 'ArrowUp', 'b'], ['d', 'ArrowUp', 'a'], ['a', 'ArrowLeft', ''], ['a', 'ArrowUp', ''], ['e', 'ArrowRight', ''], ['e', 'ArrowDown', ''], ['a', 'Enter', '']]) {
        const { document } = run('mcp_bridge/static/mcp_bridge/matrix.js', MATRIX);
        const form = document.getElementById('matrix-form');
        const event = await form.fire('keydown', { key, target: document.getElementById(from) });
        const focused = document.querySelectorAll('input').filter((one) => one.done.includes('focus'));
        assert.deepEqual([focused.map((one) => one.id).join(), event.prevented], [to, key !== 'Enter'], from + key);
    }
});
