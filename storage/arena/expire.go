package arena

// Expire reports what has passed its deadline and was not reported before, for
// the daemon to send as revokes, and drops chunks that waited too long for
// their parts. It frees no slot that an owner may still use. now is
// CLOCK_MONOTONIC nanoseconds.
func (a *Arena) Expire(now int64) []Revocation {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	a.expirePending(now)
	var out []Revocation
	for _, own := range a.owners {
		if own.detached {
			continue
		}
		r := Revocation{Owner: own.id, Deadline: now + int64(a.opt.RevokeGrace)}
		for rec := own.live.head; rec != 0 && a.side.recs[rec].deadline() < now; rec = own.live.head {
			a.unlink(&own.live, rec)
			a.ent[rec].state = stRevoked
			own.revoked[rec] = now
			r.Grants = append(r.Grants, a.slotOf(rec))
		}
		for id, l := range own.loads {
			if l.revokedAt == 0 && l.deadline < now {
				l.revokedAt = now
				r.Loads = append(r.Loads, id)
			}
		}
		if len(r.Grants)+len(r.Loads) > 0 {
			a.st.Revokes++
			out = append(out, r)
		}
	}
	return out
}

// Overdue lists owners that did not answer a revoke within the grace. The
// daemon ends their sessions.
func (a *Arena) Overdue(now int64) []Owner {
	a.mu.Lock()
	defer a.mu.Unlock()
	grace := int64(a.opt.RevokeGrace)
	var out []Owner
	for _, own := range a.owners {
		if !own.detached && own.overdue(now-grace) {
			out = append(out, own.id)
		}
	}
	return out
}

func (o *owner) overdue(before int64) bool {
	for _, at := range o.revoked {
		if at < before {
			return true
		}
	}
	for _, l := range o.loads {
		if l.revokedAt != 0 && l.revokedAt < before {
			return true
		}
	}
	return false
}

// AnswerRevoke frees what the client says it has stopped using. What is not
// o's, or not any more, is ignored: an answer may cross a commit or release.
func (a *Arena) AnswerRevoke(o Owner, slots []Slot, loads []uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	own, err := a.attached(o)
	if err != nil {
		return
	}
	for _, s := range slots {
		if rec, ok := a.takeBack(own, s); ok {
			a.freeGrant(own, rec)
		}
	}
	for _, id := range loads {
		if l := own.loads[id]; l != nil {
			delete(own.loads, id)
			a.endLoad(l)
		}
	}
}
