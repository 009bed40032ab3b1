"""A vote store in a database server: what is reported when it cannot be reached or used."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from fixtures_server import wait_until
from fixtures_votes import rating, vote

from diffusiongpt.errors import NeedsExtraError, SettingsError, VoteError, VotesUnreachableError
from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.votes import VoteStore

if TYPE_CHECKING:
    from pathlib import Path

    import postgres


def test_a_url_that_is_none_is_a_settings_error() -> None:
    """A wrong database URL gives an error with the correct form, and shows no password."""
    with pytest.raises(SettingsError, match="the URL of the vote store is not valid") as caught:
        VoteStore("nosuchdatabase://me:secret@host/votes").all()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("place", ["host:54e2", "me:an@host:secret@host"])
def test_a_port_that_is_no_number_is_a_settings_error(place: str) -> None:
    """This also holds if an '@' in a password makes part of it look like a port; no part of it is shown."""
    with pytest.raises(SettingsError, match="port") as caught:
        VoteStore(f"postgresql://{place}/votes").all()
    assert "%40" in caught.value.hint
    assert "secret" not in f"{caught.value!r} {caught.value.hint}"
    assert caught.value.__suppress_context__


def test_a_missing_driver_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psycopg, a PostgreSQL URL names the extra."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(NeedsExtraError, match="driver") as caught:
        VoteStore("postgresql+psycopg://me:secret@host/votes").all()
    assert caught.value.hint == 'pip install "diffusiongpt[postgres]"'


def test_a_server_that_does_not_answer_is_a_vote_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Votes wait for it; this also holds if the password is in the URL, which is not shown."""
    store = VoteStore(f"postgresql+psycopg://me:secret@/votes?host={tmp_path}", queue_folder=tmp_path)
    for act in (store.all, lambda: store.merge([vote()])):
        with pytest.raises(VotesUnreachableError, match="votes at postgresql") as caught:
            act()
        assert "the server is running" in caught.value.hint
        assert "secret" not in f"{caught.value} {caught.value.hint} {store!r}"
    assert store.is_queued(store.add(vote()))
    assert "secret" not in caplog.text
    store.close()


def test_a_user_who_may_only_read_is_told(database_server: postgres.PostgresServer) -> None:
    """Their new votes are refused, and existing votes are read."""
    store = VoteStore(database_server.new_database())
    cast = store.add(vote())
    database = sa.make_url(str(store.place)).database
    database_server.execute("CREATE ROLE reader LOGIN")
    database_server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", str(store.place))
    reader = VoteStore(database_server.url(str(database), user="reader"))
    assert (reader.all(), reader.count()) == ([cast], 1)
    with pytest.raises(VoteError, match="permission denied") as caught:
        reader.add(vote())
    assert "this user may read and write" in caught.value.hint
    for opened in (store, reader):
        opened.close()


def test_a_database_in_use_by_another_program_can_be_shared(database_server: postgres.PostgresServer) -> None:
    """Other tables stay next to ours, unless one of them has the name of one of ours."""
    shared, taken = database_server.new_database(), database_server.new_database()
    database_server.execute("CREATE TABLE bookmarks (url TEXT)", shared)
    database_server.execute("CREATE TABLE votes (url TEXT)", taken)
    with_room, without = VoteStore(shared), VoteStore(taken)
    with_room.add(vote())
    assert with_room.count() == 1
    with pytest.raises(VoteError, match="another program: votes"):
        without.add(vote())
    for opened in (with_room, without):
        opened.close()


def test_a_lock_that_is_not_released_is_reported(database_server: postgres.PostgresServer) -> None:
    """Writing waits for another writer only for a limited time; reading does not wait."""
    slow, store = VoteStore(database_server.new_database()), None
    slow.add(vote())
    store = VoteStore(str(slow.place), busy_seconds=0.1)
    with slow._database._writing():
        with pytest.raises(VoteError, match="lock timeout") as caught:
            store.add(vote())
        assert store.count() == 1
    assert "Another process is writing" in caught.value.hint
    store.add(vote())
    for opened in (slow, store):
        opened.close()


def test_a_store_outlives_a_lost_connection(database_server: postgres.PostgresServer) -> None:
    """After a restarted server, or a firewall that dropped the connection, the next call connects again."""
    store = VoteStore(database_server.new_database())
    store.add(vote())
    database_server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()",
        str(store.place),
    )
    store.add(rating())
    assert (store.count(), len(store.ratings())) == (1, 1)
    store.close()


def test_the_settings_may_name_the_server(database_server: postgres.PostgresServer, tmp_path: Path) -> None:
    """`DIFFUSIONGPT_VOTES` takes a URL; the settings do not show the password in it."""
    url = database_server.new_database()
    settings = load_settings(home=tmp_path, hub_cache=tmp_path, votes=url, zoo="tiny", device="cpu")
    with DiffusionGPT(settings=settings) as studio:
        studio.preferences.record(vote("tiny-pixel", "tiny-pixel", "tiny-oil"))
        # a busy machine may take longer to read the vote than a route waits
        wait_until(lambda: studio.route("a fox").ranking_version != "r0")
    assert not (tmp_path / "votes.db").exists()
    assert url not in repr(settings)
