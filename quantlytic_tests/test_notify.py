"""Messages reach a real webhook and a real mail server; what is not taken is said, and no address is shown."""

import logging

import pytest

from quantlytic_assets.notify import Notifier, addresses
from quantlytic_tests.receivers import Mailbox, Webhook


@pytest.fixture
def webhook():
    with Webhook().serving() as open_one:
        yield open_one


@pytest.fixture
def mailbox():
    with Mailbox().serving() as open_one:
        yield open_one


def test_addresses_are_divided_by_commas_and_blanks_but_not_within_one():
    mail = "mailto://user:pass@example.com?to=a@b.com,c@d.com"
    assert addresses(f" json://host/a, {mail} slack://A/B/C\n,tgram://1:x/2/, ") == [
        "json://host/a", mail, "slack://A/B/C", "tgram://1:x/2/",
    ]  # fmt: skip
    assert addresses("") == addresses(" , ") == []


def test_a_webhook_and_a_mailbox_get_the_message(webhook, mailbox):
    said = "No bar since 12:00 – look at the feed."
    assert Notifier([webhook.url, mailbox.url]).send("crypto_1m is stale", said) == []
    assert webhook.texts == [("crypto_1m is stale", said)]
    senders = {sender for sender, _, _ in mailbox.mails}
    receivers = {one for _, to, _ in mailbox.mails for one in to}
    assert senders == {"alerts@example.com"} and receivers == {"me@example.com", "you@example.com"}
    mail = mailbox.mails[0][2]
    assert mail["Subject"] == "crypto_1m is stale"
    assert said in mail.get_body(("plain", "html")).get_content()


def test_who_does_not_take_it_is_named_without_a_secret_and_the_others_get_it(webhook, mailbox, caplog):
    caplog.set_level(logging.DEBUG)
    webhook.status = 500
    with Webhook().serving() as gone:
        away = gone.url
    notifier = Notifier([webhook.url, away, mailbox.url, "nonsense://x"])
    failed = notifier.send("title", "body")
    assert [(one.number, one.kind) for one in failed] == [(1, "json"), (2, "json"), (4, "nonsense")]
    assert str(failed[0]) == "address 1 of QUANTLYTIC_NOTIFY (json://…)"
    assert len(mailbox.mails) == 2
    mailbox.rejecting, webhook.status = True, 200
    assert [one.number for one in notifier.send("title", "body", only=[1, 3])] == [3]
    assert len(webhook.posts) == 1
    assert "s3cret" not in "".join(map(str, failed)) + caplog.text


def test_slack_and_telegram_addresses_are_told_from_wrong_ones():
    good = [
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#alerts", "tgram://123456789:abcdefg_hijklmnop/12315544/",
        "json://localhost/hook", "mailto://user:pass@example.com",
    ]  # fmt: skip
    assert Notifier(good).unusable() == []
    wrong = Notifier(["slack://", good[1], "tgram://no", "pigeon://coop"]).unusable()
    assert [one.number for one in wrong] == [1, 3, 4]
    assert len(Notifier([])) == 0 and Notifier([]).send("a", "b") == []
