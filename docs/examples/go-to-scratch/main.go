// Adds up its arguments.
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/pkg/errors"
)

func sum(words []string) (int, error) {
	total := 0
	for _, word := range words {
		number, err := strconv.Atoi(word)
		if err != nil {
			return 0, errors.Wrapf(err, "cannot add %q", word)
		}
		total += number
	}
	return total, nil
}

func main() {
	words := os.Args[1:]
	if len(words) > 0 && words[0] == "--help" {
		fmt.Println("usage: project NUMBER...")
		return
	}
	total, err := sum(words)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(total)
}
