import assert from 'node:assert/strict';
import test from 'node:test';
import { run } from '../../support/fake_page.mjs';

const script = (name) => `accounts/static/accounts/${name}.js`;

test('a click elsewhere and Escape close open filters', async () => {
    const html = `<nav id="changelist-filter"><details id="a" open><a id="in"></a></details><details id="b" open></details></nav>
<details id="other" open></details><span class="help-tooltip" aria-label="x"></span>`;
    const { document, window } = run(script('admin'), html);
    const open = () => ['a', 'b', 'other'].filter((id) => document.getElementById(id).open);
    await document.fire('click', { target: document.getElementById('in') });
    assert.deepEqual(open(), ['a', 'other']);
    await document.fire('keydown', { key: 'Enter' });
    assert.deepEqual(open(), ['a', 'other']);
    await document.fire('keydown', { key: 'Escape' });
    assert.deepEqual(open(), ['other']);
    await window.fire('load');
    assert.equal(document.querySelector('span').getAttribute('role'), 'img');
});

for (const [clipboard, how] of [[true, 'the clipboard'], [false, 'a selected text']]) {
    test(`a button copies through ${how}`, async () => {
        const copied = [];
        const navigator = clipboard ? { clipboard: { writeText: async (text) => copied.push(text) } } : {};
        const html = '<body><pre><code data-copy="Copy" data-copied="Copied">text</code></pre><i data-copy="Copy" data-copied="Done" data-value="value">shown</i></body>';
        const { document } = run(script('copy'), html, { navigator });
        document.execCommand = (what) => copied.push(what === 'copy' && document.body.querySelector('textarea').value);
        const buttons = document.querySelectorAll('button');
        assert.deepEqual(buttons.map((one) => [one.type, one.className, one.textContent]), [['button', 'copy', 'Copy'], ['button', 'copy', 'Copy']]);
        assert.equal(document.querySelector('pre').nextElementSibling, buttons[0]);
        for (const button of buttons) { await button.fire('click'); }
        assert.deepEqual(copied, ['text', 'value']);
        assert.deepEqual(buttons.map((one) => one.textContent), ['Copied', 'Done']);
        assert.equal(document.querySelector('textarea'), null);
    });
}

test('a field hides the choices that do not match, except ticked ones', async () => {
    const choices = (count) => [...Array(count).keys()].map((n) => `<div><label><input type="checkbox"${n === 1 ? ' checked' : ''}>Scope ${n}</label></div>`).join('');
    for (const [count, fields] of [[7, 0], [8, 1]]) {
        const { document } = run(script('filter_choices'), `<form data-choices="list" data-words="Filter"><div id="list">${choices(count)}</div></form>`);
        await document.fire('DOMContentLoaded');
        const found = document.querySelectorAll('input[type=search]');
        assert.equal(found.length, fields);
        for (const field of found) {
            assert.deepEqual([field.placeholder, field.getAttribute('aria-label')], ['Filter', 'Filter']);
            assert.equal(field.nextElementSibling.id, 'list');
            field.value = ' SCOPE 3 ';
            await field.fire('input');
            const shown = document.querySelectorAll('label').filter((one) => !one.parentElement.hidden);
            assert.deepEqual(shown.map((one) => one.textContent), ['Scope 1', 'Scope 3']);
            assert.equal((await field.fire('keydown', { key: 'Enter' })).prevented, true);
            assert.equal((await field.fire('keydown', { key: 'a' })).prevented, false);
        }
    }
});

test('groups of the navigation open and close, and Escape closes the menu', async () => {
    const html = `<button id="to-menu" aria-expanded="false" aria-controls="nav-sidebar"></button><nav id="nav-sidebar">
<button id="group" aria-expanded="false" aria-controls="items"></button><ul id="items" hidden></ul></nav>`;
    const { document } = run(script('navigation'), html);
    const [menu, group, items, nav] = ['to-menu', 'group', 'items', 'nav-sidebar'].map((id) => document.getElementById(id));
    const state = () => [menu.getAttribute('aria-expanded'), group.getAttribute('aria-expanded'), items.hidden, nav.hidden];
    await group.fire('click');
    assert.deepEqual(state(), ['false', 'true', false, false]);
    await document.fire('keydown', { key: 'Escape' });
    assert.deepEqual(menu.done, []);
    await menu.fire('click');
    assert.deepEqual(state(), ['true', 'true', false, false]);
    await document.fire('keydown', { key: 'a' });
    assert.equal(state()[0], 'true');
    await document.fire('keydown', { key: 'Escape' });
    assert.deepEqual([state()[0], menu.done], ['false', ['focus']]);
    await group.fire('click');
    assert.deepEqual(state(), ['false', 'false', true, false]);
});

test('the time zone is a cookie of a year, secure over https', () => {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    const found = (protocol, cookie = '') => {
        const document = { cookie };
        run(script('time_zone'), '', { document, location: { protocol } });
        return document.cookie;
    };
    const plain = `portico_time_zone=${zone}; Path=/; Max-Age=31536000; SameSite=Lax`;
    assert.equal(found('http:'), plain);
    assert.equal(found('https:'), `${plain}; Secure`);
    const known = `a=b; portico_time_zone=${zone}`;
    assert.equal(found('https:', known), known);
});
