"""What is done to records within Redis: one script for many of them, each of its acts atomic.

A session is one hash. `epoch` says whose it is; `write` numbers the writes of one owner, so that one which was given up
and arrives after its successor, over a connection that was closed long ago, changes nothing.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from hashlib import sha1

PREFIX = "inferway:session:v1:"
"""Of the keys. Gateways whose records these ones could not read would use another."""


class Act(bytes, Enum):
    """What can be done to a record, by its name in the script."""

    CREATE = b"create"
    CLAIM = b"claim"
    WRITE = b"write"
    DELETE = b"delete"
    RENEW = b"renew"


class Outcome(IntEnum):
    """What an act answers; a claim that succeeds answers epoch and record."""

    DONE = 1
    GONE = 0
    TAKEN = -1


SCRIPT = """
local acts = {}

function acts.create(key, epoch, write, record, ttl)
  redis.call('HSET', key, 'epoch', epoch, 'write', write, 'record', record)
  redis.call('PEXPIRE', key, ttl)
  return 1
end

function acts.claim(key, epoch, write, record, ttl)
  if redis.call('EXISTS', key) == 0 then return 0 end
  redis.call('HSET', key, 'write', write)
  redis.call('HINCRBY', key, 'epoch', 1)
  redis.call('PEXPIRE', key, ttl)
  return redis.call('HMGET', key, 'epoch', 'record')
end

function acts.write(key, epoch, write, record, ttl)
  local held = redis.call('HMGET', key, 'epoch', 'write')
  if not held[1] then return 0 end
  if held[1] ~= epoch then return -1 end
  if tonumber(held[2]) < tonumber(write) then
    redis.call('HSET', key, 'write', write, 'record', record)
    redis.call('PEXPIRE', key, ttl)
  end
  return 1
end

function acts.delete(key, epoch)
  if redis.call('HGET', key, 'epoch') == epoch then redis.call('DEL', key) end
  return 1
end

function acts.renew(key, epoch, write, record, ttl)
  if redis.call('HGET', key, 'epoch') == epoch then redis.call('PEXPIRE', key, ttl) end
  return 1
end

local answers = {}
for i, key in ipairs(KEYS) do
  local act, epoch, write, record, ttl = unpack(ARGV, 5 * i - 4, 5 * i)
  local done, answer = pcall(acts[act], key, epoch, write, record, ttl)
  if not done then answer = redis.error_reply(type(answer) == 'table' and answer.err or answer) end
  answers[i] = answer
end
return answers
"""
"""Its arguments are five for each key: act, epoch, number of the write, record, milliseconds to live."""
SCRIPT_SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""Redis' name of it."""
