package shell

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// count takes "-n N" or "-N" off the arguments, 10 when there is neither.
func count(args []string) (int, []string, error) {
	if len(args) == 0 || !strings.HasPrefix(args[0], "-") {
		return 10, args, nil
	}
	text, rest := args[0][1:], args[1:]
	if text == "n" && len(rest) > 0 {
		text, rest = rest[0], rest[1:]
	}
	n, err := strconv.Atoi(strings.TrimPrefix(text, "n"))
	if err != nil || n < 0 || n > 1<<20 {
		return 0, nil, fmt.Errorf("%q is not a number of lines", text)
	}
	return n, rest, nil
}

func head(_ context.Context, e env, args []string) error {
	n, names, err := count(args[1:])
	if err != nil {
		return err
	}
	return e.inputs(names, func(_ string, r io.Reader) error {
		left := n
		return lines(r, func(s string) bool {
			if left--; left >= 0 {
				fmt.Fprintln(e.Stdout, s)
			}
			return left > 0
		})
	})
}

func tail(_ context.Context, e env, args []string) error {
	n, names, err := count(args[1:])
	if err != nil {
		return err
	}
	return e.inputs(names, func(_ string, r io.Reader) error {
		var last []string
		err := lines(r, func(s string) bool {
			if last = append(last, s); len(last) > n {
				last = last[1:]
			}
			return true
		})
		for _, s := range last {
			fmt.Fprintln(e.Stdout, s)
		}
		return err
	})
}

// grep is grep [-i] [-v] [-q] PATTERN [FILE…], with Go's regular expressions.
func grep(_ context.Context, e env, args []string) error {
	invert, quiet, prefix := false, false, ""
	args = args[1:]
	for ; len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-'; args = args[1:] {
		for _, c := range args[0][1:] {
			switch c {
			case 'i':
				prefix = "(?i)"
			case 'v':
				invert = true
			case 'q':
				quiet = true
			case 'E', 'e':
			default:
				return fmt.Errorf("-%c is no option here; there are -i, -v and -q", c)
			}
		}
	}
	if len(args) == 0 {
		return errors.New("which pattern?")
	}
	re, err := regexp.Compile(prefix + args[0])
	if err != nil {
		return err
	}
	found := false
	names := args[1:]
	err = e.inputs(names, func(name string, r io.Reader) error {
		return lines(r, func(s string) bool {
			if re.MatchString(s) == invert {
				return true
			}
			found = true
			if !quiet {
				if len(names) > 1 {
					s = name + ":" + s
				}
				fmt.Fprintln(e.Stdout, s)
			}
			return !quiet
		})
	})
	if err == nil && !found {
		err = errSilent
	}
	return err
}

// wc prints lines, words and bytes.
func wc(_ context.Context, e env, args []string) error {
	return e.inputs(args[1:], func(name string, r io.Reader) error {
		newlines, words, bytes, inWord := 0, 0, 0, false
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			for _, c := range buf[:n] {
				blank := c == ' ' || c >= '\t' && c <= '\r'
				if !blank && !inWord {
					words++
				}
				inWord = !blank
				if c == '\n' {
					newlines++
				}
			}
			bytes += n
			if err == io.EOF {
				fmt.Fprintf(e.Stdout, "%7d %7d %7d %s\n", newlines, words, bytes, name)
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
}

// wget is wget URL [FILE]; the file "-" is standard output.
func wget(ctx context.Context, e env, args []string) error {
	if len(args) != 2 && len(args) != 3 {
		return errors.New("usage: wget URL [FILE]")
	}
	u, err := url.Parse(args[1])
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		io.Copy(e.Stderr, io.LimitReader(resp.Body, 1<<10))
		return errors.New(resp.Status)
	}
	name := path.Base(u.Path)
	if len(args) == 3 {
		name = args[2]
	}
	if name == "-" {
		_, err = io.Copy(e.Stdout, resp.Body)
		return err
	}
	f, err := os.Create(e.path(name))
	if err != nil {
		return err
	}
	n, err := io.Copy(f, resp.Body)
	if err = errors.Join(err, f.Close()); err == nil {
		fmt.Fprintf(e.Stdout, "%s: %d bytes\n", name, n)
	}
	return err
}

// compress is gzip [FILE…] > TARGET: unlike gzip it leaves its input alone.
func compress(_ context.Context, e env, args []string) error {
	z := gzip.NewWriter(e.Stdout)
	err := e.inputs(files(args), func(_ string, r io.Reader) error {
		_, err := io.Copy(z, r)
		return err
	})
	return errors.Join(err, z.Close())
}

// decompress is gunzip [FILE…] > TARGET, and zcat.
func decompress(_ context.Context, e env, args []string) error {
	return e.inputs(files(args), func(_ string, r io.Reader) error {
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		_, err = io.Copy(e.Stdout, z)
		return err
	})
}

// files drops the tool's name and -c, which says what is done anyway.
func files(args []string) []string {
	if args = args[1:]; len(args) > 0 && args[0] == "-c" {
		args = args[1:]
	}
	return args
}
