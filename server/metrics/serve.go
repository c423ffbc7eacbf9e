package metrics

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Server is the HTTP endpoint /metrics.
type Server struct {
	http     http.Server
	listener net.Listener
	done     chan struct{}
}

// Serve starts the endpoint. It refuses an address that is not loopback,
// whatever the configuration says: nobody is asked who they are.
func Serve(addr string, r *prometheus.Registry) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if t, ok := l.Addr().(*net.TCPAddr); !ok || !t.IP.IsLoopback() {
		_ = l.Close()
		return nil, fmt.Errorf("metrics: %s is not loopback", l.Addr())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	s := &Server{
		listener: l, done: make(chan struct{}),
		http: http.Server{
			Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
			WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		},
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l) // ends by Close
	}()
	return s, nil
}

// Addr is where the endpoint listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close ends the endpoint and its connections.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}
