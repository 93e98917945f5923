import assert from 'node:assert/strict';
import test from 'node:test';
import { run } from '../../support/fake_page.mjs';

const row = (id) => `<tr><th><a href="/admin/accounts/auditevent/${id}/change/">${id}</a></th></tr>`;
const table = (...ids) => `<div class="results"><table id="result_list"><tbody>${ids.map(row).join('')}</tbody></table></div>`;
const page = (rows) => `<form id="changelist-form">${rows}</form><p id="follow" hidden data-url="/rows/" data-after="500"
 data-following="Following." data-added="New: 0" data-ended="Ended." data-failed="Failed."><button aria-pressed="false"></button><span role="status"></span></p>`;

function following(rows, answers, { hidden = false } = {}) {
    let now = 1000;
    const at = { set now(value) { now = value; }, get now() { return now; } };
    const found = run('accounts/static/accounts/follow.js', page(rows), {
        answers, Date: { now: () => now }, location: { search: '?show=denied' } });
    found.document.hidden = hidden;
    const followed = found.document.getElementById('follow');
    const button = followed.querySelector('button');
    const shown = () => found.document.querySelectorAll('#result_list tbody tr').map((one) => one.textContent);
    const next = async () => { const timer = found.timers.filter(Boolean).at(-1); found.timers.length = 0; await timer.act(); };
    const words = () => followed.querySelector('[role=status]').textContent;
    const pressed = () => button.getAttribute('aria-pressed');
    return { ...found, answers, at, followed, button, shown, next, words, pressed };
}

test('new rows come to the top, and are counted every ten seconds', async () => {
    const one = following(table(499, 498), [{ text: table(501, 499) }, { text: table(503, 502, 501) }]);
    assert.equal(one.followed.hidden, false);
    await one.button.fire('click');
    assert.deepEqual([one.pressed(), one.words(), one.timers.at(-1).wait], ['true', 'Following.', 0]);
    await one.next();
    assert.equal(one.sent[0].url, '/rows/?show=denied&after=300');
    assert.equal(one.sent[0].redirect, 'error');
    assert.deepEqual(one.shown(), ['501', '499', '498']);
    assert.equal(one.words(), 'Following.');
    assert.equal(one.timers.at(-1).wait, 2000);
    one.at.now += 10000;
    await one.next();
    assert.equal(one.sent[1].url, '/rows/?show=denied&after=301');
    assert.deepEqual(one.shown(), ['503', '502', '501', '499', '498']);
    assert.equal(one.words(), 'New: 3');
    one.answers.push({ text: table(504) }, { text: table(505) });
    one.at.now += 9999;
    await one.next();
    assert.equal(one.words(), 'New: 3');
    one.at.now += 1;
    await one.next();
    assert.equal(one.words(), 'New: 2');
});

test('an empty list gets its table', async () => {
    const one = following('<p class="empty-note">Nothing.</p>', [{ text: table(501) }]);
    await one.button.fire('click');
    await one.next();
    assert.deepEqual(one.shown(), ['501']);
    assert.equal(one.document.querySelector('.empty-note'), null);
});

test('the list keeps its newest 200 rows', async () => {
    const ids = [...Array(200).keys()].map((n) => 400 - n);
    const one = following(table(...ids), [{ text: table(501) }]);
    await one.button.fire('click');
    await one.next();
    assert.deepEqual([one.shown().length, one.shown()[0], one.shown().at(-1)], [200, '501', '202']);
});

test('five failures in a row end it, and a success starts again', async () => {
    const failed = { status: 500 };
    const one = following(table(499), [failed, failed, failed, failed, { text: table(499) }, failed, failed, failed, failed, failed]);
    await one.button.fire('click');
    for (let tries = 0; tries < 9; tries += 1) { await one.next(); }
    assert.equal(one.pressed(), 'true');
    await one.next();
    assert.deepEqual([one.pressed(), one.words(), one.timers.filter(Boolean).length], ['false', 'Failed.', 0]);
    await one.button.fire('click');
    one.answers.push(failed);
    await one.next();
    assert.equal(one.pressed(), 'true');
});

for (const [status, state] of [[400, 'false'], [403, 'false'], [499, 'false'], [500, 'true']]) {
    test(`an answer ${status} ends it at once: ${state}`, async () => {
        const one = following(table(499), [{ status }]);
        await one.button.fire('click');
        await one.next();
        assert.equal(one.pressed(), state);
    });
}

test('it ends after half an hour, and a press ends it', async () => {
    const one = following(table(499), [{ text: table(499) }]);
    await one.button.fire('click');
    one.at.now += 30 * 60000;
    await one.next();
    assert.equal(one.pressed(), 'true');
    one.at.now += 1;
    await one.next();
    assert.deepEqual([one.pressed(), one.words(), one.sent.length], ['false', 'Ended.', 1]);
    await one.button.fire('click');
    await one.button.fire('click');
    assert.deepEqual([one.pressed(), one.words(), one.timers.filter(Boolean).length], ['false', '', 0]);
});

test('a hidden tab asks nothing and goes on', async () => {
    const one = following(table(499), [], { hidden: true });
    await one.button.fire('click');
    await one.next();
    assert.deepEqual([one.sent.length, one.pressed(), one.timers.filter(Boolean).length], [0, 'true', 1]);
});
