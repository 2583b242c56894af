// Command tlogcheck verifies a tlog-tiles export (C2SP tlog-tiles, signed-note, tlog-checkpoint) with Go's own,
// unmodified golang.org/x/mod/sumdb: the code that checks Go's module downloads. It knows nothing of xproxy.
//
//	tlogcheck DIR VKEY [OLDER-CHECKPOINT...]
//
// It opens DIR/checkpoint with VKEY, reads every tile of the tree through tlog.TileHashReader, which authenticates it
// against the root, and compares every record of every entry bundle with its leaf. Each older checkpoint must be
// signed and consistent with the newer tree. Prints "ok <size> <root>", or says what is wrong and exits with 1.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8 // of a tile: 256 hashes

// A directory with tiles, as a tlog.TileReader.
type directory string

func (d directory) Height() int { return height }

func (d directory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, tile := range tiles {
		var err error
		if data[i], err = os.ReadFile(d.path(tile.Path())); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (d directory) SaveTiles([]tlog.Tile, [][]byte) {}

// C2SP leaves out the height, which is always 8, and calls the level of the records "entries".
func (d directory) path(tile string) string {
	tile = strings.Replace(tile, "tile/8/data/", "tile/entries/", 1)
	tile = strings.Replace(tile, "tile/8/", "tile/", 1)
	return filepath.Join(string(d), filepath.FromSlash(tile))
}

// openCheckpoint returns the origin and tree of the signed note in a file.
func openCheckpoint(path string, verifier note.Verifier) (string, tlog.Tree, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", tlog.Tree{}, err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return "", tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] == "" {
		return "", tlog.Tree{}, fmt.Errorf("not a checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 1 || strconv.FormatInt(size, 10) != lines[1] {
		return "", tlog.Tree{}, fmt.Errorf("bad size %q", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return "", tlog.Tree{}, fmt.Errorf("bad root %q", lines[2])
	}
	tree := tlog.Tree{N: size}
	copy(tree.Hash[:], root)
	return lines[0], tree, nil
}

// readBundle returns the records of an entry bundle: each a big-endian 16-bit length, then that many bytes.
func readBundle(path string, count int) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	records := make([][]byte, 0, count)
	for len(data) > 0 {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("%s: cut off in record %d", path, len(records))
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		records = append(records, data[2:end])
		data = data[end:]
	}
	if len(records) != count {
		return nil, fmt.Errorf("%s: %d records, not %d", path, len(records), count)
	}
	return records, nil
}

// checkRecords compares every record with its leaf, and so reads and authenticates every tile of levels 0 and above.
func checkRecords(d directory, tree tlog.Tree, reader tlog.HashReader) error {
	for first := int64(0); first < tree.N; first += 1 << height {
		width := int64(1 << height)
		if tree.N-first < width {
			width = tree.N - first
		}
		tile := tlog.Tile{H: height, L: -1, N: first >> height, W: int(width)}
		records, err := readBundle(d.path(tile.Path()), int(width))
		if err != nil {
			return err
		}
		indexes := make([]int64, width)
		for i := range indexes {
			indexes[i] = tlog.StoredHashIndex(0, first+int64(i))
		}
		leaves, err := reader.ReadHashes(indexes)
		if err != nil {
			return fmt.Errorf("tile of entry %d: %v", first, err)
		}
		for i, record := range records {
			if tlog.RecordHash(record) != leaves[i] {
				return fmt.Errorf("entry %d is not what was signed", first+int64(i))
			}
		}
	}
	return nil
}

// checkProofs proves the first, a middle and the last record as an auditor would who holds just one of them.
func checkProofs(tree tlog.Tree, reader tlog.HashReader) error {
	for _, index := range []int64{0, tree.N / 2, tree.N - 1} {
		leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			return err
		}
		proof, err := tlog.ProveRecord(tree.N, index, reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf[0]); err != nil {
			return fmt.Errorf("entry %d: %v", index, err)
		}
	}
	return nil
}

func run(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("usage: tlogcheck DIR VKEY [OLDER-CHECKPOINT...]")
	}
	d := directory(arguments[0])
	verifier, err := note.NewVerifier(arguments[1])
	if err != nil {
		return err
	}
	origin, tree, err := openCheckpoint(filepath.Join(string(d), "checkpoint"), verifier)
	if err != nil {
		return fmt.Errorf("checkpoint: %v", err)
	}
	if origin != verifier.Name() {
		return fmt.Errorf("the checkpoint is of %q, the key of %q", origin, verifier.Name())
	}
	reader := tlog.TileHashReader(tree, d)
	if err := checkRecords(d, tree, reader); err != nil {
		return err
	}
	if err := checkProofs(tree, reader); err != nil {
		return err
	}
	for _, path := range arguments[2:] {
		olderOrigin, older, err := openCheckpoint(path, verifier)
		if err != nil {
			return fmt.Errorf("%s: %v", path, err)
		}
		if olderOrigin != origin {
			return fmt.Errorf("%s: of %q, not of %q", path, olderOrigin, origin)
		}
		proof, err := tlog.ProveTree(tree.N, older.N, reader)
		if err != nil {
			return fmt.Errorf("%s: %v", path, err)
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash); err != nil {
			return fmt.Errorf("%s: not a prefix of the log: %v", path, err)
		}
	}
	fmt.Println("ok", tree.N, base64.StdEncoding.EncodeToString(tree.Hash[:]))
	return nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tlogcheck:", err)
		os.Exit(1)
	}
}
